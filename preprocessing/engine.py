"""The one door to NVTabular: makes sure that dask works the way it expects, and quiets its import."""

from __future__ import annotations

import logging

from common.merlin import importing_merlin

with importing_merlin():
    import dask.dataframe as dd
    import nvtabular
    from merlin.dag import ColumnSelector, Graph, Node, postorder_iter_nodes
    from merlin.dag import ops as dag_ops
    from merlin.dag.executors import LocalExecutor
    from merlin.dag.ops import concat_columns, selection, subset_columns
    from merlin.dag.ops.stat_operator import StatOperator
    from merlin.dag.runtime import Runtime
    from merlin.io import Dataset as MerlinDataset
    from merlin.schema import ColumnSchema, Schema, Tags
    from merlin.schema.io.tensorflow_metadata import TensorflowMetadata
    from nvtabular import ops
    from nvtabular.ops import Operator

if dd._dask_expr_enabled():
    raise ImportError(
        "dask.dataframe was imported with query planning before nextitem: install nextitem into this environment, "
        "or set DASK_DATAFRAME__QUERY_PLANNING=False"
    )

logging.getLogger("nvtabular").setLevel(logging.ERROR)

__all__ = [
    "ColumnSchema",
    "ColumnSelector",
    "Graph",
    "LocalExecutor",
    "MerlinDataset",
    "Node",
    "Operator",
    "Runtime",
    "Schema",
    "StatOperator",
    "Tags",
    "TensorflowMetadata",
    "concat_columns",
    "dag_ops",
    "dd",
    "nvtabular",
    "ops",
    "postorder_iter_nodes",
    "selection",
    "subset_columns",
]
