"""What `benchmarks.architectures` is made of."""
