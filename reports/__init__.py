"""Pages and pictures drawn from the analyzer's tables; nothing here computes a new fact."""
