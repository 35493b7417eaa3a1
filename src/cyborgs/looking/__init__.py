"""What looks at a run while it goes, and after."""
