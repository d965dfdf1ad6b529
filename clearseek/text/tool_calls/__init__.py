"""What a model writes, as it is written: its thought, its answer, and the tools that it calls."""
