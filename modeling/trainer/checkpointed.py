"""Hugging Face's Trainer with `modeling.trainer.checkpoints`: what it writes and reads, in the places it calls."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Trainer as BaseTrainer

from modeling.trainer.batches import Batches
from modeling.trainer.checkpoints import check_data, load_weights, refusing, save_data, save_model


class HFWrapper(nn.Module):
    """A model as Hugging Face's Trainer calls it; `module` is the model itself, untouched by autocast and compilers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module: Any = model

    def forward(self, inputs: Any, targets: Any = None) -> Any:
        """The loss of a batch: ``{"loss", "targets"}``."""
        return self.module(inputs, targets, training=True)


class CheckpointedTrainer(BaseTrainer):
    """Base of `modeling.trainer.trainer.Trainer`: nothing that it reads is unpickled but by ``weights_only``."""

    _batches: Batches | None = None  # what it trains on

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            save_model(self.model.module, output_dir or self.args.output_dir, self.args)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and self._batches is not None:
            save_data(self._batches.identity(), output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.model.module, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        load_weights(self.model.module, self.state.best_model_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self._batches is not None:
            check_data(self._batches.identity(), checkpoint)
        with refusing(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with refusing(checkpoint or ""):
            super()._load_rng_state(checkpoint)

    def _save_model_and_checkpoint(self, save_model_class: bool = False) -> None:
        # Transformers4Rec's programs call it. A checkpoint says what the model is, too.
        self._save_checkpoint(self.model, None)

    def load_model_trainer_states_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        """Weights and random numbers of a checkpoint; `train` resumes all of it.

        Parameters
        ----------
        checkpoint_path : str
            The folder.
        model : Model, optional
            What to put the weights into; the Trainer's own by default.
        """
        if model is not None:
            self.model = self.model_wrapped = HFWrapper(model)
        load_weights(self.model.module, checkpoint_path)
        self._load_rng_state(checkpoint_path)
