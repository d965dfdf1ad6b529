"""Generation: the same engine for reinforcement learning, evaluation and conversation."""
