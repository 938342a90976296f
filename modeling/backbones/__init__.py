"""The networks over the vectors of a session."""
