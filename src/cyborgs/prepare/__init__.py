"""What is made of the photos before a run needs it, once."""
