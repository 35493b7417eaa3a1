"""What the machine gives: cores, memory, disk."""
