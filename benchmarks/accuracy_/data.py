"""The data set of a YAML, made and read once for all contenders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from common.progress import say
from modeling.data import Sessions, read_sessions
from modeling.inputs.item_vectors import read_vectors
from modeling.schema import Feature, features_of, max_length_of, read_schema
from preprocessing.cluster import Workers
from preprocessing.contract import agree
from preprocessing.files import expand
from preprocessing.preprocess import PARTITION_EVENTS, gather, preprocess
from preprocessing.settings import Dataset
from preprocessing.shuffle import Spill
from preprocessing.windows import split

_DAY = 24 * 3_600 * 10**9


@dataclass
class Data:
    """What contenders are fitted on, chosen by and measured with.

    Attributes
    ----------
    features : list of Feature
        The inputs, the item first.
    limit : int
        The most events of a session, the one to predict among them.
    train, valid, test : Sessions
        The windows.
    times : Tensor [S], float64, optional
        When each training session began, days since 1970; None where it cannot be told.
    vectors : mapping of Tensor
        Vectors of items that the features came with.
    """

    features: list[Feature]
    limit: int
    train: Sessions
    valid: Sessions
    test: Sessions
    times: Tensor | None
    vectors: Mapping[str, Tensor]

    @property
    def item(self) -> Feature:
        """The item column."""
        return self.features[0]


def prepare(dataset: Dataset, folder: Path | None = None) -> Data:
    """Preprocess a data set as ``nextitem preprocess`` does, and read what came out.

    Parameters
    ----------
    dataset : Dataset
        The description.
    folder : Path, optional
        Where the features are to stay.

    Raises
    ------
    UserError
        When the events cannot be used.
    """
    with TemporaryDirectory() as scratch:
        folder = folder or Path(scratch) / "features"
        preprocess(dataset, folder)
        schema = read_schema(folder)
        features = features_of(schema)
        windows = {name: read_sessions(folder, name, features) for name in ("train", "valid", "test")}
        vectors = dict(read_vectors(folder))
    times: Tensor | None = train_times(dataset)
    if times is not None and len(times) != len(windows["train"]):
        say("some training sessions were left out by the workflow: their times cannot be told")
        times = None
    return Data(features, max_length_of(schema), **windows, times=times, vectors=vectors)


def train_times(dataset: Dataset) -> Tensor:
    """When the training sessions began [S], days since 1970, in the order of the features' rows.

    The features do not hold it, as no model sees it: the first half of preprocessing is done once more.
    """
    root = dataset.data_root.absolute()
    with Workers() as workers, TemporaryDirectory() as scratch:
        contract = agree(dataset, expand(root, dataset.events.files), PARTITION_EVENTS)
        count = max(1, -(-contract.rows // PARTITION_EVENTS))
        job = Spill(dataset, contract, Path(scratch), count)
        _, partitions = gather(job, workers, Path(scratch), Path(scratch) / "features")
        windows = split(partitions, dataset)
        starts = [np.array(part.starts()[slice(*windows.range(part, "train"))]) for part in partitions]
    return torch.from_numpy(np.concatenate(starts) / _DAY)
