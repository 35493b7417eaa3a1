"""Label maps: sources, store, generation."""
