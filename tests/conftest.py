"""Before anything imports torch: one thread. Tiny models gain nothing from two, and wait for them on a busy machine.

The suite runs in two processes (`make test`). A file's tests stay together, and all of `end_to_end/`, whose files share
a shop that takes a minute to train.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

_TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        where = item.path.relative_to(_TESTS)
        group = where.parts[0] if where.parts[0] == "end_to_end" else str(where)
        item.add_marker(pytest.mark.xdist_group(group))
