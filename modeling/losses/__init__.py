"""Losses over a catalogue: exact, sampled, and pairwise."""
