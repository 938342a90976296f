"""`Trainer`: Hugging Face's, for models of sessions."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import PrinterCallback, ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, get_last_checkpoint

from common.errors import UserError
from common.progress import step
from modeling.loop import tasks_of
from modeling.serialization import describe
from modeling.trainer.arguments import T4RecTrainingArguments
from modeling.trainer.batches import Batches, in_epochs
from modeling.trainer.callbacks import MetricsFile, PredictionsFile, ProgressLines
from modeling.trainer.checkpointed import HFWrapper
from modeling.trainer.compiling import compiled
from modeling.trainer.data import batches_for
from modeling.trainer.evaluation import by_task, evaluated, labels_of, predicted, steps_of
from modeling.trainer.steps import SteppingTrainer


class Trainer(SteppingTrainer):
    """Trains and evaluates a model with Hugging Face's Trainer and accelerate.

    The loss of a step is the mean over all targets of the batches that it accumulates, on all processes. A run that is
    resumed has the weights of one that was not interrupted, bit by bit. Evaluation counts each session once, in the
    precision of the weights.

    Parameters
    ----------
    model : Model
        Trained in place.
    args : T4RecTrainingArguments
        How.
    schema : Schema, optional
        Says what the targets in files are; a model that only predicts the next item needs none.
    train_dataset_or_path, eval_dataset_or_path, test_dataset_or_path : optional
        Parquet files, folders of them (a window of a features folder) or patterns; a table, a data frame or `Sessions`.
    train_dataloader, eval_dataloader, test_dataloader : optional
        Instead: a `MerlinDataLoader`, or any iterable of batches.
    callbacks : sequence of transformers.TrainerCallback
        Such as `transformers.EarlyStoppingCallback`.
    compute_metrics : bool or callable, optional
        Whether evaluation computes the metrics of the model's tasks; without it, the loss. A callable is given an
        `transformers.EvalPrediction` with the item ids and scores of the lists, and the labels.
    incremental_logging : bool
        Steps in logs go on from one `train` to the next.
    **others
        Other arguments of `transformers.Trainer`, such as `optimizers`.

    Attributes
    ----------
    log_predictions_callback : callable, optional
        With ``log_predictions``: called with ``labels``, ``pred_item_ids``, ``pred_item_scores`` (numpy arrays),
        ``metrics`` and ``dataset_type`` for each batch, instead of writing parquet.

    Raises
    ------
    UserError
        When the arguments do not fit each other or the model.
    """

    def __init__(
        self,
        model: Any,
        args: T4RecTrainingArguments,
        schema: Any = None,
        train_dataset_or_path: Any = None,
        eval_dataset_or_path: Any = None,
        test_dataset_or_path: Any = None,
        train_dataloader: Any = None,
        eval_dataloader: Any = None,
        test_dataloader: Any = None,
        callbacks: Sequence[Any] = (),
        compute_metrics: bool | Callable[[EvalPrediction], dict[str, float]] | None = None,
        incremental_logging: bool = False,
        **others: Any,
    ) -> None:
        if args.save_strategy != "no":
            _check_saving(model)
        _check_metric(model, args, compute_metrics)
        args._n_gpu = min(1, args.n_gpu)  # several GPUs are for torchrun: no DataParallel
        if args.logging_dir is not None:
            os.environ["TENSORBOARD_LOGGING_DIR"] = args.logging_dir
        if "wandb" in args.report_to:
            os.environ.setdefault("WANDB_RUN_GROUP", args.experiments_group)
        self.schema, self.incremental_logging = schema, incremental_logging
        self.train_dataloader, self.eval_dataloader = train_dataloader, eval_dataloader
        self.test_dataset_or_path, self.test_dataloader = test_dataset_or_path, test_dataloader
        self.log_predictions_callback: Callable[..., None] | None = None
        self._past_steps, self._seeded = 0, False
        self._read: dict[str, tuple[Any, Batches]] = {}
        # The compiler is called here (`compiled`), not by accelerate: it would compile the whole model.
        backend, args.torch_compile_backend = args.torch_compile_backend, None
        try:
            super().__init__(
                model=HFWrapper(model),
                args=args,
                train_dataset=train_dataset_or_path,
                eval_dataset=eval_dataset_or_path if eval_dataset_or_path is not None else eval_dataloader,
                callbacks=[MetricsFile(), ProgressLines(), *callbacks],
                **others,
            )
        except ValueError as error:
            raise UserError(f"the Trainer cannot be made: {error}") from error
        finally:
            args.torch_compile_backend = backend
        self.compute_metrics = compute_metrics
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    # Data

    @property
    def train_dataset_or_path(self) -> Any:
        """What to train on; may be set between two `train`."""
        return self.train_dataset

    @train_dataset_or_path.setter
    def train_dataset_or_path(self, given: Any) -> None:
        self.train_dataset = given

    @property
    def eval_dataset_or_path(self) -> Any:
        """What to evaluate on; may be set at any time."""
        return self.eval_dataset

    @eval_dataset_or_path.setter
    def eval_dataset_or_path(self, given: Any) -> None:
        self.eval_dataset = given

    def get_train_dataloader(self) -> Any:
        """The batches of this process, another order in each epoch."""
        given = self.train_dataloader if self.train_dataloader is not None else self.train_dataset
        if given is None:
            raise UserError("there is nothing to train on: give the Trainer train_dataset_or_path or train_dataloader")
        self._batches = batches_for(given, self.model.module, self.args, self.schema, training=True)
        return in_epochs(self._batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Batches:
        """What `evaluate` measures on: each session once over all processes."""
        if isinstance(eval_dataset, str) and isinstance(self.eval_dataset, dict):
            eval_dataset = self.eval_dataset[eval_dataset]
        own = self.eval_dataloader if self.eval_dataloader is not None else self.eval_dataset
        return self._held_out("eval", eval_dataset if eval_dataset is not None else own)

    def get_test_dataloader(self, test_dataset: Any = None) -> Batches:
        """What `predict` answers."""
        own = self.test_dataloader if self.test_dataloader is not None else self.test_dataset_or_path
        return self._held_out("test", test_dataset if test_dataset is not None else own)

    def _held_out(self, name: str, given: Any) -> Batches:
        if given is None:
            raise UserError(f"there is no data: give the Trainer {name}_dataset_or_path or {name}_dataloader")
        if name not in self._read or self._read[name][0] is not given:
            self._read[name] = given, batches_for(given, self.model.module, self.args, self.schema)
        return self._read[name][1]

    def num_examples(self, dataloader: Any) -> int:
        """Sessions, as far as they are known."""
        batches = getattr(dataloader, "dataset", dataloader)
        return batches.sessions or len(batches) * batches.batch_size

    # Training

    def train(self, resume_from_checkpoint: str | bool | None = None, **others: Any) -> Any:
        """Train; see `transformers.Trainer.train`.

        Raises
        ------
        UserError
            When there is no data, or no checkpoint to resume from.
        """
        if resume_from_checkpoint is True:
            folder = self.args.output_dir
            resume_from_checkpoint = get_last_checkpoint(folder) if os.path.isdir(folder) else None
            if resume_from_checkpoint is None:
                raise UserError(f"{folder} holds no checkpoint to resume from")
        if self.incremental_logging:
            self._past_steps += self.state.global_step
        if self.args.world_size > 1 and not self._seeded:
            # Hugging Face gives all processes one seed: they would drop and hide the same places of their batches.
            torch.manual_seed(self.args.seed + 7919 * self.args.process_index)
            self._seeded = True
        resume = resume_from_checkpoint or None
        if not self.args.torch_compile:
            return super().train(resume_from_checkpoint=resume, **others)
        with compiled(self.model, self.args.torch_compile_backend, self.args.torch_compile_mode):
            return super().train(resume_from_checkpoint=resume, **others)

    def wipe_memory(self) -> None:
        """Give back what is not used any more."""
        gc.collect()
        torch.cuda.empty_cache()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log figures at the step, counted over all `train` with `incremental_logging`."""
        self.state.global_step += self._past_steps
        try:
            super().log(logs, start_time)
        finally:
            self.state.global_step -= self._past_steps

    # Evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics of the model's tasks, ``eval_/next-item/ndcg_at_10``, by default on the evaluation data.

        Parameters
        ----------
        eval_dataset : optional
            Other data, as the constructor takes it, or a dictionary of several.
        ignore_keys : list of str, optional
            Has no meaning.
        metric_key_prefix : str
            What the names begin with. With "train" the data is the training data, unless it is given, and at most
            ``eval_steps_on_train_set`` batches of it.
        """
        if eval_dataset is None and metric_key_prefix == "train":
            eval_dataset = self.train_dataloader if self.train_dataloader is not None else self.train_dataset
        elif eval_dataset is None and self.args.eval_on_test_set:
            eval_dataset = self.test_dataloader if self.test_dataloader is not None else self.test_dataset_or_path
        found: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return found

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """What `evaluate` and `predict` do with their data."""
        model, args = self.model.module, self.args
        most = args.eval_steps_on_train_set if metric_key_prefix == "train" else 0
        self.callback_handler.eval_dataloader = dataloader
        several = args.world_size > 1
        gather = gather_object if several else list
        with step(description, steps_of(dataloader, most), quiet=True) as bar, torch.compiler.set_stance("force_eager"):
            if description == "Prediction":
                lists = predicted(model, dataloader, gather, args.predict_top_k, bar.advance)
                return EvalLoopOutput(by_task(lists), None, {}, len(next(iter(lists.values()))[0]))
            log, file = self._logging(metric_key_prefix)
            own = self.compute_metrics if callable(self.compute_metrics) else None
            try:
                metrics, sessions, lists = evaluated(
                    model,
                    dataloader,
                    metric_key_prefix,
                    lambda total: self.accelerator.reduce(total, reduction="sum"),
                    gather,
                    metrics=self.compute_metrics is True,
                    every=args.compute_metrics_each_n_steps,
                    most=most,
                    top_k=args.predict_top_k,
                    keep=own is not None,
                    log=log,
                    advance=bar.advance,
                )
            finally:
                if file is not None:
                    file.close()
        if own is not None:
            found = own(EvalPrediction(predictions=by_task(lists, -1), label_ids=labels_of(lists)))
            metrics |= {
                n if n.startswith(f"{metric_key_prefix}_") else f"{metric_key_prefix}_{n}": v for n, v in found.items()
            }
        return EvalLoopOutput(None, None, metrics, sessions)

    def predict(
        self, test_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> Any:
        """What comes after each session of the test data.

        Parameters
        ----------
        test_dataset : optional
            Data as the constructor takes it; by default its test data.
        ignore_keys : list of str, optional
            Has no meaning.
        metric_key_prefix : str
            What the names of the figures begin with.

        Returns
        -------
        transformers.trainer_utils.PredictionOutput
            ``predictions`` are the item ids and scores [N, predict_top_k], best first, in the order of the data; a
            dictionary by task name where there are several tasks.
        """
        return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    def _logging(self, prefix: str) -> tuple[Any, PredictionsFile | None]:
        """What to tell the lists of an evaluation, and the file that must be closed."""
        if not self.args.log_predictions:
            return None, None
        told = self.log_predictions_callback
        if told is not None:
            return lambda labels, ids, scores, numbers, metrics: told(
                labels=labels.cpu().numpy(),
                pred_item_ids=ids.cpu().numpy(),
                pred_item_scores=scores.float().cpu().numpy(),
                metrics=metrics,
                dataset_type=prefix,
            ), None
        name = f"{prefix}-{self.state.global_step + self._past_steps}"
        file = PredictionsFile(self.args.output_dir, name, self.args.process_index, self.args.world_size)
        return file.add, file


def _check_saving(model: Any) -> None:
    """Say now, and not at the first checkpoint, that a model cannot be saved."""
    try:
        describe(model)
    except (UserError, ValueError) as error:
        raise UserError(f"{error}: train without checkpoints, save_strategy='no'") from error


def _check_metric(model: Any, args: T4RecTrainingArguments, compute_metrics: Any) -> None:
    """Refuse a metric for the best model that evaluation will not have."""
    wanted = args.metric_for_best_model
    if wanted is None or callable(compute_metrics):
        return
    known = {"eval_loss", "eval_/loss"}
    if compute_metrics:
        known |= {name for task in tasks_of(model) for name in task.compute_metrics("eval_")}
    if (wanted if wanted.startswith("eval_") else f"eval_{wanted}") not in known:
        hint = "" if compute_metrics else "; compute_metrics=True has more"
        raise UserError(f"metric_for_best_model is {wanted!r}, evaluation has {', '.join(sorted(known))}{hint}")
