"""What runs in the environment of Transformers4Rec; see `benchmarks.t4r.process.ask`."""
