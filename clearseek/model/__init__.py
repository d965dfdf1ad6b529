"""The decoder, its parts, and its checkpoints."""
