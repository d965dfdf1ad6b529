"""Learning: optimisers, losses, train state, and one file per training stage."""
