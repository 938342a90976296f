"""How a `Trainer` trains: Hugging Face's arguments, and those that Transformers4Rec added."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from common.errors import UserError

ENGINES = ("merlin", "merlin_dataloader", "nvtabular", "pyarrow")


@dataclass
class T4RecTrainingArguments(TrainingArguments):
    """Hugging Face's `transformers.TrainingArguments`, and these.

    Parameters
    ----------
    max_sequence_length : int, optional
        The most recent events of a session that are loaded; the model's own number by default.
    shuffle_buffer_size : int
        Sessions that are mixed where files are too large for memory; 0 for 65,536. Training data is always shuffled.
    data_loader_engine : {"merlin", "merlin_dataloader", "nvtabular", "pyarrow"}
        "pyarrow" reads files into memory, whatever their size; the others read there what fits, and stream the rest.
    eval_on_test_set : bool
        `Trainer.evaluate` takes the test data.
    eval_steps_on_train_set : int
        When evaluating on training data (``metric_key_prefix="train"``): this many batches; 0 for all.
    predict_top_k : int
        Items of a list that is returned or logged, best first. Metrics do not depend on it.
    learning_rate_num_cosine_cycles_by_epoch : float
        Waves a training epoch of schedules of cosines (``lr_scheduler_type="cosine"``, ...); ``num_cycles`` in
        ``lr_scheduler_kwargs`` has precedence. With half a wave over the whole run, 0.5 / epochs, it falls once.
    log_predictions : bool
        Evaluation writes the lists to ``output_dir/predictions``, or gives them to `Trainer.log_predictions_callback`.
    compute_metrics_each_n_steps : int
        Evaluation measures, and logs lists of, each n-th batch only.
    experiments_group : str
        Group of the run, for loggers that have groups.
    evaluation_strategy, no_cuda, logging_dir, warmup_ratio, overwrite_output_dir
        Names that Hugging Face has dropped: ``eval_strategy``, ``use_cpu``, the environment's
        ``TENSORBOARD_LOGGING_DIR``, ``warmup_steps`` below 1; the last says nothing.

    Raises
    ------
    UserError
        When arguments contradict each other.
    """

    max_sequence_length: int | None = field(default=None, metadata={"help": "most recent events loaded of a session"})
    shuffle_buffer_size: int = field(default=0, metadata={"help": "sessions mixed when streaming; 0: 65,536"})
    data_loader_engine: str = field(default="merlin", metadata={"help": f"one of {', '.join(ENGINES)}"})
    eval_on_test_set: bool = field(default=False, metadata={"help": "evaluate on the test data"})
    eval_steps_on_train_set: int = field(default=20, metadata={"help": "batches of an evaluation on training data"})
    predict_top_k: int = field(default=100, metadata={"help": "items of a list"})
    learning_rate_num_cosine_cycles_by_epoch: float = field(default=1.25, metadata={"help": "cosine waves an epoch"})
    log_predictions: bool = field(default=False, metadata={"help": "write the lists of an evaluation"})
    compute_metrics_each_n_steps: int = field(default=1, metadata={"help": "measure each n-th batch only"})
    experiments_group: str = field(default="default", metadata={"help": "group of the run"})
    evaluation_strategy: str | None = field(default=None, metadata={"help": "old name of eval_strategy"})
    no_cuda: bool = field(default=False, metadata={"help": "old name of use_cpu"})
    logging_dir: str | None = field(default=None, metadata={"help": "where TensorBoard's files go"})
    warmup_ratio: float | None = field(default=None, metadata={"help": "old name of warmup_steps below 1"})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "has no meaning"})

    def __post_init__(self) -> None:
        """Check, and translate old names."""
        if self.data_loader_engine not in ENGINES:
            raise UserError(f"data_loader_engine must be one of {', '.join(ENGINES)}, not {self.data_loader_engine!r}")
        least = {"shuffle_buffer_size": 0, "eval_steps_on_train_set": 0, "predict_top_k": 1}
        for name, lowest in {**least, "compute_metrics_each_n_steps": 1, "gradient_accumulation_steps": 1}.items():
            if getattr(self, name) < lowest:
                raise UserError(f"{name} must be at least {lowest}, not {getattr(self, name)}")
        own: Any = self  # mypy does not see Hugging Face's fields
        if self.evaluation_strategy is not None:
            own.eval_strategy = self.evaluation_strategy
        if self.warmup_ratio is not None and not own.warmup_steps:
            own.warmup_steps = self.warmup_ratio
        # Hugging Face asks for `use_cpu` before it takes bf16 where there is nothing but a CPU.
        nothing_else = not torch.cuda.is_available() and not torch.backends.mps.is_available()
        own.use_cpu = own.use_cpu or self.no_cuda or nothing_else
        if own.fp16 and own.use_cpu:
            raise UserError("fp16 needs a GPU: take bf16, or neither")
        try:
            super().__post_init__()
        except (ValueError, TypeError) as error:
            raise UserError(f"training arguments: {error}") from error
