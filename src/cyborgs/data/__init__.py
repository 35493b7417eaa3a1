"""Images from files."""
