"""The papers of a run, generated from its records and never typed: cards, bills of materials, checklists, signatures.

Without torch.
"""
