"""The record of a run: append, hash, verify, replay; reports only read it."""
