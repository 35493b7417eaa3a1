"""Is the backbone any good?."""
