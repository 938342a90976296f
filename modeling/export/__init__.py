"""The model as something that other programs run."""
