"""Sessions a second of data loaders, from the same parquet files: Merlin's, torch's DataLoader and ours.

    python -m benchmarks.loader [--sessions N] [--peer-sessions N] [--batch-size N] [--runs N] [--only NAME ...]
                                [--json]

Makes sessions of 2 to 20 events in three columns of codes and two of numbers, in 8 files. Each run of a loader is a
process of its own, the loaders take turns, and the median of the runs is shown. Importing is not counted; torch and
Arrow compute on one thread, threads that a loader starts for itself are its own affair. No loader feeds a model.

    first pass   with everything that comes before the first batch: opening, reading, decoding
    later pass   the second pass over the same loader
    CPU second   sessions of the later pass a second of computing by all its threads: what a busy machine moves least

Merlin's and torch's loaders are slow and get fewer sessions, of the same kind. All loaders shuffle; Merlin's gives
values and offsets, the others padded batches, which is more work.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from common.display import show_json, show_line, show_table
from common.errors import UserError
from common.progress import step
from modeling.data import joined, read_file
from modeling.loading import SessionStream
from modeling.loading.parts import parquet_files
from modeling.schema import Feature

FILES, ROW_GROUP, LONGEST, ITEMS = 8, 50_000, 20, 100_000
FEATURES = [
    Feature("item_id", "categorical", ITEMS, 3, True),
    Feature("category", "categorical", 500, 3),
    Feature("event_type", "categorical", 8, 3),
    Feature("price", "continuous"),
    Feature("age", "continuous"),
]
MERLIN = "merlin-dataloader"
# Something that is gone over once a pass, and how many sessions a batch of it holds.
Loader = tuple[Iterable[Any], Callable[[Any], int]]


def make(folder: Path, sessions: int) -> None:
    """Write the sessions, the same in every call."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        count = sessions * (number + 1) // FILES - sessions * number // FILES
        n = random.integers(2, LONGEST + 1, count)
        offsets, events = pa.array(np.r_[0, n.cumsum()].astype(np.int32)), int(n.sum())
        columns = {}
        for feature in FEATURES:
            codes = feature.kind == "categorical"
            drawn = random.integers(feature.reserved, feature.cardinality, events) if codes else random.random(events)
            values = pa.array(drawn, pa.int64() if codes else pa.float32())
            columns[feature.name] = pa.ListArray.from_arrays(offsets, values)
        pq.write_table(pa.table(columns), folder / f"part-{number}.parquet", row_group_size=ROW_GROUP)


def _merlin(folder: Path, batch_size: int) -> Loader:
    from merlin.dataloader.torch import Loader as MerlinLoader
    from merlin.io import Dataset

    dataset = Dataset([str(file) for file in parquet_files(folder)], engine="parquet", cpu=True)
    loader = MerlinLoader(dataset, batch_size=batch_size, shuffle=True)
    return loader, lambda batch: len(batch[0]["item_id__offsets"]) - 1


def _rows(folder: Path) -> dict[str, Any]:
    import pandas as pd

    frame = pd.concat([pd.read_parquet(file) for file in parquet_files(folder)])
    return {feature.name: frame[feature.name].to_numpy() for feature in FEATURES}


class _Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A session at a time, as the usual tutorial has it."""

    def __init__(self, folder: Path) -> None:
        self.rows = _rows(folder)

    def __len__(self) -> int:
        return len(self.rows["item_id"])

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {name: torch.tensor(column[number]) for name, column in self.rows.items()}


def _collate(sessions: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    pad = torch.nn.utils.rnn.pad_sequence
    return {name: pad([session[name] for session in sessions], batch_first=True) for name in sessions[0]}


def _size(batch: dict[str, Tensor]) -> int:
    return len(batch["item_id"])


def _naive(folder: Path, batch_size: int) -> Loader:
    return torch.utils.data.DataLoader(_Rows(folder), batch_size, shuffle=True, collate_fn=_collate), _size


def _padded(folder: Path, batch_size: int) -> Loader:
    """All sessions padded to the longest beforehand, which is what Transformers4Rec's pyarrow loader does."""
    tensors = []
    for column in _rows(folder).values():
        matrix = np.zeros((len(column), LONGEST), column[0].dtype)
        for number, values in enumerate(column):
            matrix[number, : len(values)] = values
        tensors.append(torch.from_numpy(matrix))
    dataset = torch.utils.data.TensorDataset(*tensors)
    return torch.utils.data.DataLoader(dataset, batch_size, shuffle=True), lambda batch: len(batch[0])


def _memory(folder: Path, batch_size: int) -> Loader:
    sessions = joined([read_file(file, FEATURES) for file in parquet_files(folder)])
    random = torch.Generator().manual_seed(0)

    class Passes:
        def __iter__(self) -> Iterator[Any]:
            return sessions.batches(batch_size, LONGEST, random)

    return Passes(), lambda batch: len(batch[0])


def _stream(workers: int) -> Callable[[Path, int], Loader]:
    def open_(folder: Path, batch_size: int) -> Loader:
        stream = SessionStream.of(folder, FEATURES, batch_size=batch_size, limit=LONGEST, workers=workers)
        return stream, lambda batch: len(batch[0])

    return open_


LOADERS: dict[str, Callable[[Path, int], Loader]] = {
    MERLIN: _merlin,
    "torch DataLoader, a session at a time": _naive,
    "torch DataLoader, padded beforehand": _padded,
    "ours, in memory": _memory,
    "ours, streaming, no threads": _stream(0),
    "ours, streaming, 1 worker": _stream(1),
    "ours, streaming, 2 workers": _stream(2),
}


def measure(name: str, folder: Path, batch_size: int) -> dict[str, float]:
    """One run: sessions a second of the first pass and of the second, and the process's highest memory use in MiB."""
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    warnings.simplefilter("ignore")
    if name == MERLIN:
        from common.merlin import importing_merlin

        with importing_merlin():
            import merlin.dataloader.torch
            import merlin.io  # noqa: F401
    import pandas  # noqa: F401

    began = time.perf_counter()
    loader, size = LOADERS[name](folder, batch_size)
    sessions = sum(map(size, loader))
    first = sessions / (time.perf_counter() - began)
    began, cpu = time.perf_counter(), time.process_time()
    again = sum(map(size, loader))
    later, cpu = again / (time.perf_counter() - began), again / (time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"sessions": sessions, "first_pass": first, "later_pass": later, "cpu_second": cpu, "peak_mib": peak}


def compare(names: list[str], folders: tuple[Path, Path], batch_size: int, runs: int) -> list[dict[str, Any]]:
    """Medians of the loaders' runs, in turn, ours on the first folder and the peers on the second."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with step("Loaders", runs * len(names)) as bar:
        for _ in range(runs):
            for name in names:
                # A fresh process for each: the highest memory use of a process never falls.
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found[name].append(pool.apply(measure, (name, folders[not name.startswith("ours")], batch_size)))
                bar.advance()
    results = []
    for name, measured in found.items():
        middle = {key: statistics.median(run[key] for run in measured) for key in measured[0]}
        results.append({"loader": name, **middle, "runs": measured})
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000, metavar="N", help="1,000,000 by default")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="sessions a batch, 256 by default")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each loader, 3 by default")
    parser.add_argument("--peer-sessions", type=int, metavar="N", help="a tenth as many by default")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="loaders whose names contain one of these"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")
    options = parser.parse_args()
    names = [name for name in LOADERS if not options.only or any(part in name for part in options.only)]
    peers = options.sessions // 10 if options.peer_sessions is None else options.peer_sessions
    if not names or min(options.sessions // FILES, peers // FILES, options.runs, options.batch_size) < 1:
        raise UserError(f"--only must name some of {', '.join(LOADERS)}; each loader needs {FILES} sessions or more")
    with tempfile.TemporaryDirectory() as temporary:
        folders = Path(temporary) / "ours", Path(temporary) / "peers"
        with step("Making sessions"):
            make(folders[0], options.sessions)
            make(folders[1], peers)
        results = compare(names, folders, options.batch_size, options.runs)
    if options.json:
        show_json({"batch_size": options.batch_size, "loaders": results})
        return
    base = results[0]
    rows = []
    for one in results:
        rates = [f"{one[key]:,.0f}" for key in ("sessions", "first_pass", "later_pass", "cpu_second", "peak_mib")]
        rows.append([one["loader"], *rates[:4], f"{one['later_pass'] / base['later_pass']:.1f}x", rates[4]])
    columns = ("", "sessions", "first pass", "later pass", "CPU second", f"x {base['loader']}", "peak MiB")
    show_table(f"Sessions a second, {options.batch_size} a batch", columns, rows)
    show_line(f"medians of {options.runs} runs, one torch thread")


if __name__ == "__main__":
    main()
