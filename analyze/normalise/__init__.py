"""Templates of paths, statements and keys: what makes two requests the same kind."""
