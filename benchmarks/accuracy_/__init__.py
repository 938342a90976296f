"""The parts of `benchmarks.accuracy`: the data, the contenders, what is known of each, and the page."""
