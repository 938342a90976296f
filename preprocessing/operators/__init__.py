"""NVTabular operators of our own, a file a kind.

They work in any NVTabular graph beside stock operators. Their arithmetic is that of `preprocessing.kernels`,
which the server uses as well.
"""

from preprocessing.operators.group import ITEM, KEYS, ORDER, SESSION, TIME, GroupSessions
from preprocessing.operators.time import CyclicTime, ItemAge

__all__ = ["ITEM", "KEYS", "ORDER", "SESSION", "TIME", "CyclicTime", "GroupSessions", "ItemAge"]
