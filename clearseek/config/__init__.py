"""Typed recipes and models: what a user may write, checked before anything runs."""
