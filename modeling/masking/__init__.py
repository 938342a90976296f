"""Training objectives: which positions are predicted, from what. Their names are in `registry`."""
