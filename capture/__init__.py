"""What needs the node: probes, drain, samplers, snapshot, and the conversion into a bundle."""
