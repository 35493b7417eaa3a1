"""What protocols train, by the engine's loop."""
