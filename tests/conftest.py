"""Before anything imports torch: one thread. Tiny models gain nothing from two, and wait for them on a busy machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
