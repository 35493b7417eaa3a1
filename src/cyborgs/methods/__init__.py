"""What is learned and how."""
