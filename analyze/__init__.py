"""What needs only a bundle: streams, protocols, tables, findings, comparison."""
