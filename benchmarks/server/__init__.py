"""The parts of `benchmarks.serving`: its data, what it serves, how it is driven and counted.

All engines answer the same requests, raw events of one session or of 128, except ``model``, which gets them encoded.

nextitem    the export of this repository
stock       what merlin-systems exports of stock NVTabular operators and the same TorchScript (`serving.stock`)
model       the TorchScript alone, batched by Triton: what is left when preparing a request costs nothing
noop        a Python model that answers at once with fixed outputs: what Triton itself costs
"""

ENGINES = ("nextitem", "stock", "model", "noop")
PROTOCOLS = ("grpc", "http")
MANY = 128  # sessions of a large request
MAX_LENGTH, TOP_K = 20, 20
HOUR_MS = 3_600_000
FEATURES, MODEL_FOLDER, STOCK_WORKFLOW = "features", "model", "stock_workflow"
MADE = "made.json"
