"""Fitted workflow + TorchScript -> Triton repository; start the server, ask it, load-test it.

Importing this package costs nothing.
"""

# The model that clients ask, wherever it is exported, served or called.
MODEL = "nextitem"
# The model that it asks in turn, where it is exported for Triton's PyTorch backend.
RANKER = "nextitem_ranker"
