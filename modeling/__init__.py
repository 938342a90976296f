"""Schema in, trained next-item model out, with the names of Transformers4Rec: ``import modeling as tr``.

A model from a schema, in the way of that library::

    import modeling as tr

    schema = tr.read_schema("features/schema.pbtxt")
    inputs = tr.TabularSequenceFeatures.from_schema(
        schema, max_sequence_length=20, continuous_projection=64, d_output=64, masking="mlm"
    )
    config = tr.XLNetConfig.build(d_model=64, n_head=4, n_layer=2, total_seq_length=20)
    model = config.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True))

The stage of the pipeline::

    tr.train(Path("features"), Path("model"), tr.ModelSettings(architecture="gpt2"))
    tr.evaluate(Path("model"), Path("features"))

Names are imported when they are first used, so ``import modeling`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "modeling.schema": ["Feature", "Schema", "Tags", "read_schema"],
    "modeling.sequence": ["SessionStates"],
    "modeling.masking.base": ["MaskSequence"],
    "modeling.masking.causal": ["CausalLanguageModeling"],
    "modeling.masking.masked": ["MaskedLanguageModeling"],
    "modeling.masking.registry": ["masking_registry"],
    "modeling.inputs.features": ["TabularSequenceFeatures"],
    "modeling.blocks.base": ["Block"],
    "modeling.blocks.mlp": ["MLPBlock"],
    "modeling.blocks.sequential": ["SequentialBlock"],
    "modeling.backbones.configs": [
        "AlbertConfig",
        "BertConfig",
        "ElectraConfig",
        "GPT2Config",
        "RobertaConfig",
        "T4RecConfig",
        "XLNetConfig",
        "transformer_registry",
    ],
    "modeling.backbones.block": ["TransformerBlock"],
    "modeling.tasks.head": ["Head"],
    "modeling.tasks.next_item": ["NextItemPredictionTask"],
    "modeling.model": ["Model"],
    "modeling.ranking_metric": ["MeanReciprocalRankAt", "NDCGAt", "RecallAt"],
    "modeling.data": ["Sessions"],
    "modeling.settings": ["ModelSettings"],
    "modeling.training": ["build_model", "train"],
    "modeling.evaluation": ["evaluate", "ranks", "recommend"],
    "modeling.export.torchscript": ["Recommender", "export_torchscript"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'modeling' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
