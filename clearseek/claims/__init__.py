"""Figures in documents, held to the records that they come from. Without torch."""
