"""Small helpers that several protocols share."""
