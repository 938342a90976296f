"""Sessions from parquet files that need not fit into memory: `modeling.loading.stream.SessionStream`."""

from modeling.loading.stream import SessionStream

__all__ = ["SessionStream"]
