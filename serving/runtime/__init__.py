"""What runs inside Triton: numpy, torch and nothing else of size (no pandas, no transformers, no NVTabular)."""

EXECUTOR_SETTINGS = "executor.json"
RANKER_SETTINGS, RANKER_WEIGHTS = "ranker.json", "model.pt"
