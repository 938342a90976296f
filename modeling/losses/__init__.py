"""Losses over a catalogue."""
