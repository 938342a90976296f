"""The parts of `benchmarks.training`: the sessions, our side, and the clock that both sides share."""
