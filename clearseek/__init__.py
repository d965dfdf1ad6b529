"""The DeepSeek-R1 system, whole and in the open."""

__version__ = "0.1.0"
