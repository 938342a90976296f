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
    "modeling.schema": ["ColumnSchema", "Feature", "Schema", "Tags", "read_schema"],
    "modeling.sequence": ["SessionStates"],
    "modeling.masking.base": ["MaskSequence"],
    "modeling.masking.causal": ["CausalLanguageModeling"],
    "modeling.masking.masked": ["MaskedLanguageModeling"],
    "modeling.masking.permutation": ["PermutationLanguageModeling"],
    "modeling.masking.replacement": ["ReplacementLanguageModeling"],
    "modeling.masking.registry": ["masking_registry"],
    "modeling.inputs.tabular": ["AsTabular", "FilterFeatures", "MergeTabular", "TabularBlock", "TabularModule"],
    "modeling.inputs.aggregation": [
        "ConcatFeatures",
        "ElementwiseSum",
        "ElementwiseSumItemMulti",
        "StackFeatures",
        "aggregation_registry",
    ],
    "modeling.inputs.transformations": [
        "SequentialTabularTransformations",
        "StochasticSwapNoise",
        "TabularDropout",
        "TabularLayerNorm",
        "tabular_transformation_registry",
    ],
    "modeling.inputs.tables": ["FeatureConfig", "TableConfig"],
    "modeling.inputs.embedding": ["EmbeddingFeatures", "SequenceEmbeddingFeatures"],
    "modeling.inputs.continuous": ["ContinuousFeatures", "SoftEmbedding", "SoftEmbeddingFeatures"],
    "modeling.inputs.pretrained": ["PretrainedEmbeddingFeatures"],
    "modeling.inputs.initializers": ["PretrainedEmbeddingsInitializer", "embedding_matrix"],
    "modeling.inputs.tabular_features": ["TabularFeatures"],
    "modeling.inputs.features": ["TabularSequenceFeatures"],
    "modeling.inputs.fusion": ["PostContextFusion"],
    "modeling.blocks.base": ["Block"],
    "modeling.blocks.mlp": ["MLPBlock"],
    "modeling.blocks.sequential": ["SequentialBlock"],
    "modeling.backbones.configs": ["T4RecConfig"],
    "modeling.backbones.configs_both": ["LongformerConfig", "ReformerConfig", "RoFormerConfig", "XLNetConfig"],
    "modeling.backbones.configs_causal": [
        "GPT2Config",
        "LlamaConfig",
        "Mamba2Config",
        "Qwen3Config",
        "TransfoXLConfig",
    ],
    "modeling.backbones.configs_masked": [
        "AlbertConfig",
        "BertConfig",
        "ConvBertConfig",
        "DebertaConfig",
        "DebertaV2Config",
        "DistilBertConfig",
        "ElectraConfig",
        "FunnelConfig",
        "MPNetConfig",
        "MegatronBertConfig",
        "ModernBertConfig",
        "RobertaConfig",
    ],
    "modeling.backbones.configs_sessions": ["ESASRecConfig", "HSTUConfig", "SASRecConfig"],
    "modeling.backbones.registry": ["transformer_registry"],
    "modeling.backbones.block": ["TransformerBlock", "TransformerPrepare"],
    "modeling.tasks.base": ["PredictionTask"],
    "modeling.tasks.classification": ["BinaryClassificationTask", "MultiClassClassificationTask"],
    "modeling.tasks.head": ["Head"],
    "modeling.tasks.metrics": ["Accuracy", "MeanSquaredError", "Precision", "Recall"],
    "modeling.tasks.next_item": ["NextItemPredictionTask"],
    "modeling.tasks.regression": ["RegressionTask"],
    "modeling.tasks.summary": ["SequenceSummary"],
    "modeling.losses.base": ["Loss"],
    "modeling.losses.cross_entropy": ["CrossEntropy", "linear_cross_entropy"],
    "modeling.losses.pairwise": ["BPRMax", "TOP1Max"],
    "modeling.losses.registry": ["LabelSmoothCrossEntropyLoss", "loss_registry"],
    "modeling.losses.sampled": ["GeneralisedBCE", "SampledSoftmax"],
    "modeling.losses.samplers": [
        "FrequencySampler",
        "InBatchSampler",
        "LogUniformSampler",
        "UniformSampler",
        "sampler_registry",
    ],
    "modeling.model": ["Model"],
    "modeling.ranking_metric": [
        "AvgPrecisionAt",
        "DCGAt",
        "MeanReciprocalRankAt",
        "NDCGAt",
        "PrecisionAt",
        "RecallAt",
        "ranking_metrics_registry",
    ],
    "modeling.data": ["Sessions"],
    "modeling.loader": ["DataLoader", "EmbeddingOperator", "MerlinDataLoader"],
    "modeling.settings": ["ModelSettings"],
    "modeling.construction": ["build_model"],
    "modeling.trainer": ["T4RecTrainingArguments", "Trainer", "fit_and_evaluate"],
    "modeling.training": ["train"],
    "modeling.evaluation": ["evaluate", "ranks", "recommend"],
    "modeling.export.onnx": ["export_onnx"],
    "modeling.export.torchscript": ["Recommender", "export_torchscript"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

# Submodules that programs for Transformers4Rec name without importing them: ``tr.data``, ``tr.ranking_metric``.
_SUBMODULES = ("data", "losses", "masking", "ranking_metric", "schema", "trainer")

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None and name in _SUBMODULES:
        value: Any = import_module(f"modeling.{name}")
        return value
    if module is None:
        raise AttributeError(f"module 'modeling' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
