"""Runs the stages of a recipe in order, skips what is done, resumes what is not."""
