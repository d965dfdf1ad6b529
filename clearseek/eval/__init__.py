"""Measuring models: pass@k with intervals and bits per byte."""
