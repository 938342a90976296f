"""The simulated shop: raw events of shoppers whose next item follows a known law.

The demo and the tests need data on which the right answer is known. Here the events come from an explicit law
(`preprocessing.shop.law`), so the best accuracy that any model can reach on held-out sessions can be computed
(`preprocessing.shop.oracle`), and a model is judged by its share of that::

    settings = ShopSettings(seed=7, sessions=40_000)
    write_events(settings, Path("events.parquet"))
    optimum(build_shop(settings), pq.read_table("events.parquet"), session_ids=held_out)  # {"ndcg@20": ..., ...}

The same from a shell: ``python -m preprocessing.shop events.parquet``.
"""

from preprocessing.shop.law import Shop, ShopSettings, build_shop, next_item_probabilities
from preprocessing.shop.oracle import optimum
from preprocessing.shop.simulate import simulate, write_events

__all__ = [
    "Shop",
    "ShopSettings",
    "build_shop",
    "next_item_probabilities",
    "optimum",
    "simulate",
    "write_events",
]
