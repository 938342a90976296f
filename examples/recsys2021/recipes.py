"""The paper's models: the best hyperparameters of each data set and algorithm, and models built from them.

``recipes.csv`` has them, ``figures.csv`` what the paper reports for them. The numbers are those of the authors' command
lines (github.com/NVIDIA-Merlin/publications, 2021_acm_recsys_transformers4rec), which in a few places differ from
Appendix C; they found them by 100 trials each.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field
from torch import nn

import modeling as tr
from common.errors import UserError
from common.settings import Settings, validate
from modeling.schema import Feature

FOLDER = Path(__file__).parent
# What the authors' scripts set beside the sizes.
_CONFIG = {"initializer_range": 0.02, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}


class Recipe(Settings):
    """A row of ``recipes.csv``.

    A name is ``architecture:masking``, with ``+concat``, ``+soft`` or ``+multiply`` for side features: joined, joined
    with each number as a weighted mean of vectors (soft one-hot), or as a factor of the item's vector.
    """

    dataset: str
    recipe: str
    d_model: int
    item_dim: int = Field(description="width of the item's vector, which the scores are made with")
    n_layer: int
    n_head: int = 1
    input_dropout: float
    dropout: float
    learning_rate: float
    weight_decay: float
    batch_size: int
    label_smoothing: float
    swap_noise: float = Field(description="share of the values that are swapped within a batch")
    item_std: float = Field(description="deviation of the first item vectors")
    mlm_probability: float = 0.15
    plm_probability: float = 1 / 6
    max_span_length: int = 5
    side_std: float = 0.05
    size_multiplier: float = 2.0
    soft_dim: int = 0
    soft_number: int = 0
    epochs: int

    @property
    def architecture(self) -> str:
        """Of the backbone: ``xlnet``."""
        return self.recipe.partition(":")[0]

    @property
    def masking(self) -> str:
        """The objective: ``mlm``."""
        return self.recipe.partition(":")[2].partition("+")[0]

    @property
    def side(self) -> str:
        """What is done with side features, or nothing."""
        return self.recipe.partition("+")[2]


def recipes(dataset: str) -> dict[str, Recipe]:
    """The recipes of a data set by name."""
    with (FOLDER / "recipes.csv").open(encoding="utf-8", newline="") as stream:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(stream)]
    found = [validate(row, Recipe, f"recipes.csv, {row['recipe']}") for row in rows if row["dataset"] == dataset]
    return {recipe.recipe: recipe for recipe in found}


def find(dataset: str, architecture: str, masking: str | None = None, side: str | None = None) -> Recipe:
    """The recipe that was asked for.

    Parameters
    ----------
    dataset : str
        Name of the data set.
    architecture : str
        Such as ``xlnet``.
    masking : str, optional
        Such as ``mlm``; by default the architecture's only one, or ``mlm``.
    side : str, optional
        ``concat``, ``soft`` or ``multiply``; by default item ids only.

    Raises
    ------
    UserError
        When the paper has no such model of the data set.
    """
    there = recipes(dataset)
    of_it = [name for name in there if name.partition(":")[0] == architecture]
    plain = [name for name in of_it if "+" not in name]
    masking = masking or (there[plain[0]].masking if len(plain) == 1 else "mlm")
    name = f"{architecture}:{masking}" + (f"+{side}" if side else "")
    if name not in there:
        raise UserError(f"the paper has no {name} of {dataset}: it has {', '.join(there)}")
    return there[name]


def figures(dataset: str) -> list[dict[str, Any]]:
    """The paper's Table 2: ``{"algorithm", "recipe", "ndcg@20", "hr@20"}``, without what it does not have."""
    with (FOLDER / "figures.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        {
            "algorithm": row["algorithm"],
            "recipe": row["recipe"],
            "ndcg@20": float(row[f"{dataset}_ndcg"]),
            "hr@20": float(row[f"{dataset}_hr"]),
        }
        for row in rows
        if row[f"{dataset}_ndcg"]
    ]


def build(recipe: Recipe, features: list[Feature], limit: int) -> tr.Model:
    """The model of a recipe, with random weights.

    In this order, as in the paper: swapped values, vectors, dropout, a layer norm a feature, aggregation, projection to
    `d_model`, objective, backbone, and scores by the inner product with the item vectors (weight tying).

    Parameters
    ----------
    recipe : Recipe
        Which.
    features : list of Feature
        The inputs; side features are left out where the recipe does.
    limit : int
        The most events of a session.
    """
    if not recipe.side:
        features = [feature for feature in features if feature.item]
    numbers = [feature.name for feature in features if feature.kind == "continuous"]
    if recipe.side and len(features) == 1:
        raise UserError(f"{recipe.recipe} is for side features, and {recipe.dataset} has none")
    item = next(feature.name for feature in features if feature.item)
    multiply, soft = recipe.side == "multiply", recipe.side == "soft" and numbers
    inputs = tr.TabularSequenceFeatures(
        features,
        limit,
        aggregation="element-wise-sum-item-multi" if multiply else "concat",
        d_output=recipe.d_model,
        masking=recipe.masking,
        masking_arguments=_masking(recipe),
        embedding_dims={item: recipe.item_dim},
        # What is multiplied into the item's vector is as wide.
        embedding_dim_default=recipe.item_dim,
        continuous_projection=recipe.item_dim if multiply and numbers else None,
        infer_embedding_sizes=not multiply,
        infer_embedding_sizes_multiplier=recipe.size_multiplier,
        item_embedding_std=recipe.item_std,
        embedding_std=recipe.side_std,
        continuous_soft_embeddings=bool(soft),
        **({"soft_embedding_cardinality_default": recipe.soft_number} if soft else {}),
        **({"soft_embedding_dim_default": recipe.soft_dim} if soft else {}),
        pre=[tr.StochasticSwapNoise(replacement_prob=recipe.swap_noise)] if recipe.swap_noise else None,
        post=[*([tr.TabularDropout(recipe.input_dropout)] if recipe.input_dropout else []), "layer-norm"],
    )
    task = tr.NextItemPredictionTask(weight_tying=True, label_smoothing=recipe.label_smoothing)
    if recipe.architecture == "gru":
        dropout = recipe.dropout if recipe.n_layer > 1 else 0
        gru = nn.GRU(recipe.d_model, recipe.d_model, recipe.n_layer, batch_first=True, dropout=dropout)
        body = tr.SequentialBlock(inputs, tr.Block(gru, [None, limit, recipe.d_model]))
        return cast(tr.Model, tr.Model(tr.Head(body, task, inputs=inputs)))
    sizes = (recipe.d_model, recipe.n_head, recipe.n_layer, limit)
    more: dict[str, Any] = {}
    name = recipe.architecture
    if name == "bert":
        # The authors' BERT is an ALBERT whose layers share no weights.
        name, more = "albert", {"num_hidden_groups": recipe.n_layer, "inner_group_num": 1}
    config = tr.transformer_registry[name].build(*sizes, dropout=recipe.dropout, **_CONFIG, **more)
    return cast(tr.Model, config.to_torch_model(inputs, task))


def _masking(recipe: Recipe) -> dict[str, Any] | None:
    if recipe.masking == "plm":
        return {"plm_probability": recipe.plm_probability, "max_span_length": recipe.max_span_length}
    if recipe.masking == "rtd":
        return {"mlm_probability": recipe.mlm_probability, "sample_from_batch": True, "discriminator_loss_weight": 1.0}
    return {"mlm_probability": recipe.mlm_probability} if recipe.masking == "mlm" else None


def optimizer(recipe: Recipe, model: nn.Module, steps: int) -> torch.optim.Optimizer:
    """AdamW whose learning rate falls linearly to 0 within so many steps, without a warm-up."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: max(0.0, 1 - step / max(1, steps)))
    adam.register_step_post_hook(lambda *_: schedule.step())
    return adam
