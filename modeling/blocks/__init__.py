"""Blocks to put between the inputs and the head."""
