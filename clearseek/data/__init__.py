"""What texts hold: languages, repeats, personal data, evaluation items; and filters by these. Without torch."""
