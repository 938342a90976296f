"""What a `Trainer` is given to train or evaluate on, as `Batches`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import UserError
from modeling.data import Sessions
from modeling.loader import IN_MEMORY_BYTES, MerlinDataLoader
from modeling.loading.parts import parquet_files, parts_of
from modeling.loading.stream import SessionStream
from modeling.trainer.arguments import T4RecTrainingArguments
from modeling.trainer.batches import Batches, MemoryBatches
from modeling.trainer.passes import GivenBatches, StreamBatches

# Scores of a batch that evaluation holds at once, so that memory does not grow with sessions x items.
_SCORES_AT_ONCE = 1 << 24


def batches_for(
    given: Any, model: Any, args: T4RecTrainingArguments, schema: Any = None, training: bool = False
) -> Batches:
    """The batches of this process.

    Parameters
    ----------
    given : path, list of paths, table, Sessions, SessionStream, loader or iterable of batches
        As the `Trainer` takes it.
    model : Model
        Says which columns to read.
    args : T4RecTrainingArguments
        Batch sizes, length, seed, and which process of how many this is.
    schema : Schema, optional
        Needed where targets are read from files.
    training : bool
        Shuffled batches of the training size; otherwise each session exactly once over all processes.

    Raises
    ------
    UserError
        When the data cannot be read.
    """
    rank, world_size = args.process_index, args.world_size
    seed = args.seed if args.data_seed is None else args.data_seed
    if isinstance(given, Batches):
        return given
    if isinstance(given, MerlinDataLoader):
        return _of_loader(given, given.shuffle and training, given.drop_last and training, seed, rank, world_size)
    if isinstance(given, SessionStream):
        return _of_loader(MerlinDataLoader(given, given.batch_size or 1), training, False, 0, rank, world_size)
    if isinstance(given, Iterable) and not _is_data(given):
        return GivenBatches(given, rank, world_size, whole=training)
    names = model.target_names
    if names and schema is None:
        raise UserError(f"give the Trainer a schema: it must say what the target {names[0]!r} is")
    size = args.per_device_train_batch_size if training else args.per_device_eval_batch_size
    if not training and any(task.held_out for head in model.heads for task in head.tasks):
        size = max(1, min(size, _SCORES_AT_ONCE // model.inputs.item.cardinality))
    limit = args.max_sequence_length or model.max_sequence_length
    options: dict[str, Any] = {"features": model.features, "targets": names, "shuffle": training}
    drop_last = training and args.dataloader_drop_last
    if not _streamed(given, model, args, schema):
        loader = MerlinDataLoader.from_schema(schema, given, size, limit, in_memory=True, **options)
        if not len(loader.sessions):
            raise UserError(f"{_name(given)} holds no sessions")
        return MemoryBatches(loader, training, drop_last, seed, rank, world_size)
    if not training and world_size > 1:
        size = max(2, size)  # of batches of one session, a stream repeats some to make as many on each process
    loader = MerlinDataLoader.from_schema(
        schema,
        given,
        size,
        limit,
        in_memory=False,
        drop_last=drop_last,
        seed=seed,
        buffer_size=args.shuffle_buffer_size or None,
        workers=max(1, args.dataloader_num_workers),
        pin_memory=args.dataloader_pin_memory and not args.use_cpu,
        global_size=world_size,
        global_rank=rank,
        **options,
    )
    return StreamBatches(loader)


def _of_loader(
    loader: MerlinDataLoader, shuffle: bool, drop_last: bool, seed: int, rank: int, world_size: int
) -> Batches:
    if isinstance(loader.sessions, Sessions):
        return MemoryBatches(loader, shuffle, drop_last, seed, rank, world_size)
    if loader.sessions.world_size != world_size:
        raise UserError(
            f"there are {world_size} processes: make the loader with global_size={world_size} and global_rank={rank}"
        )
    return StreamBatches(loader)


def _is_data(given: Any) -> bool:
    """Whether it is paths or data, and not batches."""
    if isinstance(given, str | Path | Sessions) or hasattr(given, "columns") or hasattr(given, "to_ddf"):
        return True
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(path, str | Path) for path in given)


def _streamed(given: Any, model: Any, args: T4RecTrainingArguments, schema: Any) -> bool:
    """Whether files are too large to be read into memory."""
    paths = isinstance(given, str | Path | list | tuple)
    if not paths or args.data_loader_engine == "pyarrow":
        return False
    return sum(part.size for part in parts_of(parquet_files(given), model.features)) > IN_MEMORY_BYTES


def _name(given: Any) -> str:
    return str(given) if isinstance(given, str | Path | list | tuple) else f"the {type(given).__name__}"
