"""What runs inside Triton: numpy, torch and nothing else of size (no pandas, no transformers, no NVTabular)."""

SETTINGS, WEIGHTS, CHECKSUMS = "serving.json", "model.pt", "checksums.json"
