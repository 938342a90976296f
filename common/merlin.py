"""How Merlin is imported, by whichever package needs it first."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_merlin() -> Iterator[None]:
    """Import Merlin inside this: dask is told what NVTabular needs, and warnings that nobody here can mend are quiet.

    `preprocessing/dask.yaml` says the same to dask where nextitem was installed; this covers a checkout that was not.
    """
    import dask

    dask.config.set({"dataframe.query-planning": False, "dataframe.convert-string": False})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
