"""The proof that nothing leaves the machine: what is run, what is watched, where is searched."""
