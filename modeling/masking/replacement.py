"""Replaced token detection: masked training plus a judge of each event, genuine or made up.

A generator predicts hidden events, as in masked training; what it proposes takes their place, and a discriminator
must tell at every event whether it was replaced (ELECTRA, Clark et al., ICLR 2020). For recommendation the
generator's answers are what counts (de Souza Pereira Moreira et al., RecSys 2021, whose best models had generator and
discriminator share all weights and drew replacements from the batch).

`modeling.tasks.detection` puts the two passes together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modeling.masking.masked import MaskedLanguageModeling
from modeling.serialization import part

# Scores held at once while replacements are drawn.
_AT_ONCE = 1 << 24


@part
class ReplacementLanguageModeling(MaskedLanguageModeling):
    """Masked training whose guesses a discriminator must find.

    Parameters
    ----------
    hidden_size, padding_idx, reserved, eval_on_last_item_seq_only, train_on_last_item_seq_only
        See `MaskSequence`.
    mlm_probability, last_item_probability
        See `MaskedLanguageModeling`.
    sample_from_batch : bool
        Draw replacements among the items of the batch instead of the whole catalogue, by the generator's scores.
    use_batch_interaction : bool
        Put a whole event in the place, with all its features, taken from the batch. Needs `sample_from_batch`.
        Otherwise the item id alone is replaced.
    tied_generator : bool
        Generator and discriminator share all weights; otherwise the discriminator has blocks of its own behind the
        same embeddings.
    generator_loss_weight, discriminator_loss_weight : float
        The loss is the weighted sum of both. ELECTRA weighs the discriminator 50 and then throws the generator away;
        here the generator answers, and with that weight it hardly learns.
    """

    name = "rtd"

    def __init__(
        self,
        hidden_size: int,
        padding_idx: int = 0,
        reserved: int = 1,
        eval_on_last_item_seq_only: bool = True,
        train_on_last_item_seq_only: bool = False,
        mlm_probability: float = 0.15,
        last_item_probability: float = 0.0,
        sample_from_batch: bool = False,
        use_batch_interaction: bool = False,
        tied_generator: bool = True,
        generator_loss_weight: float = 1.0,
        discriminator_loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            hidden_size,
            padding_idx,
            reserved,
            eval_on_last_item_seq_only,
            train_on_last_item_seq_only,
            mlm_probability,
            last_item_probability,
        )
        if use_batch_interaction and not sample_from_batch:
            raise ValueError("use_batch_interaction takes events of the batch: it needs sample_from_batch=True")
        if min(generator_loss_weight, discriminator_loss_weight) < 0:
            raise ValueError("generator_loss_weight and discriminator_loss_weight must not be negative")
        self.sample_from_batch = sample_from_batch
        self.use_batch_interaction = use_batch_interaction
        self.tied_generator = tied_generator
        self.generator_loss_weight = generator_loss_weight
        self.discriminator_loss_weight = discriminator_loss_weight

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = (
            "sample_from_batch",
            "use_batch_interaction",
            "tied_generator",
            "generator_loss_weight",
            "discriminator_loss_weight",
        )
        return {**super().config(), **{name: getattr(self, name) for name in names}}


def draw(scores: Tensor) -> Tensor:
    """A column of each row, with the probabilities of its softmax.

    Parameters
    ----------
    scores : Tensor [N, C]
        -inf for what is never drawn.

    Returns
    -------
    Tensor [N], int64
        The columns, by the Gumbel-max trick from torch's generator.
    """
    noise = torch.empty_like(scores).exponential_().log_()
    return (scores - noise).argmax(1)


def replace(
    columns: dict[str, Tensor], item: str, hidden: Tensor, scores: Any, masking: ReplacementLanguageModeling
) -> tuple[dict[str, Tensor], Tensor]:
    """Put the generator's guesses in the place of what was hidden.

    Parameters
    ----------
    columns : dict of Tensor
        The batch; event-level columns are [B, L] or [B, L, V].
    item : str
        The item column.
    hidden : Tensor [B, L], bool
        What the generator was asked for, N events in all.
    scores : callable
        The generator's scores [n, C] of some of the N events, given a slice of them; -inf for reserved ids.
    masking : ReplacementLanguageModeling
        How to draw.

    Returns
    -------
    dict of Tensor
        The corrupted batch.
    Tensor [B, L], bool
        Where the item is not the genuine one: a guess that is right is no replacement.
    """
    items = columns[item]
    count = int(hidden.sum())
    with torch.no_grad():
        pool = None
        if masking.sample_from_batch:
            pool = items[items >= masking.reserved].unique()
        width = int(scores(slice(0, 1)).shape[1])
        rows = max(1, _AT_ONCE // width)
        guesses = []
        for start in range(0, count, rows):
            some = scores(slice(start, start + rows)).detach()
            guesses.append(draw(some) if pool is None else pool[draw(some[:, pool])])
        guess = torch.cat(guesses)
    corrupted = dict(columns)
    if masking.use_batch_interaction:
        # Any event of the batch that has the item lends all its features.
        donor = items.new_zeros(width).scatter(0, items.flatten(), torch.arange(items.numel(), device=items.device))
        for name, column in columns.items():
            if column.dim() >= 2 and column.shape[:2] == items.shape:
                taken = column.flatten(0, 1)[donor[guess]]
                corrupted[name] = column.masked_scatter(
                    hidden if column.dim() == 2 else hidden[..., None].expand_as(column), taken
                )
    corrupted[item] = items.masked_scatter(hidden, guess)
    return corrupted, corrupted[item] != items
