"""NVTabular operators of our own, a file a kind.

They work in any NVTabular graph beside stock operators. Their arithmetic is that of `preprocessing.kernels`,
which the server uses as well.
"""

from preprocessing.operators.encode import Encode
from preprocessing.operators.frequency import Frequency
from preprocessing.operators.group import ITEM, KEYS, ORDER, SESSION, TIME, Group, GroupSessions
from preprocessing.operators.hashing import HashBuckets
from preprocessing.operators.join import JoinTable
from preprocessing.operators.normalize import Normalize
from preprocessing.operators.relative import Relative
from preprocessing.operators.time import CyclicTime, ItemAge, SincePrevious

__all__ = [
    "ITEM",
    "KEYS",
    "ORDER",
    "SESSION",
    "TIME",
    "CyclicTime",
    "Encode",
    "Frequency",
    "Group",
    "GroupSessions",
    "HashBuckets",
    "ItemAge",
    "JoinTable",
    "Normalize",
    "Relative",
    "SincePrevious",
]
