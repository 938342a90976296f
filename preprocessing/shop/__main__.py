"""Write the events of the default shop: ``python -m preprocessing.shop events.parquet``."""

import sys

from preprocessing.shop import ShopSettings, write_events

print(write_events(ShopSettings(), sys.argv[1] if len(sys.argv) > 1 else "events.parquet"))
