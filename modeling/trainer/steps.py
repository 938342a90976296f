"""What a step of training is: losses weighted by targets, and the schedule of the learning rate."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from modeling.loop import split, to_device
from modeling.padding import pad_inputs
from modeling.trainer.checkpointed import CheckpointedTrainer
from modeling.trainer.compiling import widened
from modeling.trainer.evaluation import steps_of


class SteppingTrainer(CheckpointedTrainer):
    """Base of `modeling.trainer.trainer.Trainer`: the loss of a step is the mean over all targets of its batches."""

    loss_is_scaled_for_ga = True  # `training_step` sees to that
    _targets = 0  # of the batches of a step so far
    _losses = torch.zeros(())  # their sum

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One batch forward and backward; with the last of a step, gradients become the mean over all its targets.

        Returns
        -------
        Tensor, scalar
            That mean where a step ends, else 0: what is returned for a step adds up to its loss.
        """
        if not model.training:
            model.train()
        columns, targets = split(inputs)
        if self.args.torch_compile:
            plain = self.model.module
            columns = widened(pad_inputs(columns), plain, self.args.max_sequence_length or plain.max_sequence_length)
        result = model(to_device(columns, self.args.device), to_device(targets, self.args.device))
        loss, count = result["loss"], result["targets"]
        if self.args.world_size == 1 and self.args.gradient_accumulation_steps == 1:
            self._backward(loss)
            if not count and self.accelerator.scaler is None:
                model.zero_grad()  # nothing to learn: the optimiser takes no step
            return loss.detach()
        # Weighted by targets; what they are divided by until their number is known keeps sums from overflowing.
        scale = self.args.per_device_train_batch_size
        self._backward(loss * (count / scale))
        self._targets += count
        self._losses = self._losses.to(loss.device) + loss.detach().double() * count
        if not self.accelerator.sync_gradients:
            return torch.zeros_like(loss)
        sums = torch.stack([self._losses, self._losses.new_tensor(self._targets)])
        total, number = self.accelerator.reduce(sums, reduction="sum")
        self._targets, self._losses = 0, torch.zeros(())
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if number:
            # Processes' gradients were averaged, not added up.
            torch._foreach_mul_(gradients, float(scale * self.args.world_size / number))
        elif self.accelerator.scaler is None:
            model.zero_grad()
        return (total / number.clamp(min=1)).to(loss.dtype)

    def _backward(self, loss: Tensor) -> None:
        # Without a scaler accelerate adds nothing but looking for packages that are not there, in every step.
        if self.accelerator.scaler is None:
            loss.backward()
        else:
            self.accelerator.backward(loss)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self.accelerator.scaler is None:
            return nn.utils.clip_grad_norm_(model.parameters(), self.args.max_grad_norm)
        return super()._clip_grad_norm(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule; cosines get their number of waves by the epoch."""
        given = self.args.lr_scheduler_kwargs
        cosine = "num_cycles" in inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[self.args.lr_scheduler_type]).parameters
        if cosine and "num_cycles" not in (given or {}) and self._batches is not None:
            batches = steps_of(self._batches) or num_training_steps
            updates = -(-batches // self.args.gradient_accumulation_steps)
            waves = self.args.learning_rate_num_cosine_cycles_by_epoch * num_training_steps / updates
            self.args.lr_scheduler_kwargs = {**(given or {}), "num_cycles": waves}
        try:
            return super().create_scheduler(num_training_steps, optimizer)
        finally:
            self.args.lr_scheduler_kwargs = given

    def reset_lr_scheduler(self) -> None:
        """Forget the schedule, so that the next `train` begins a new one."""
        self.lr_scheduler, self._created_lr_scheduler = None, False
