"""One file per kind of verifier: pure functions of (candidate, answer) that never evaluate what they read."""
