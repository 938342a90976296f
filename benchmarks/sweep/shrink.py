"""A tiny network of each text backbone of the installed transformers library."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import Any

# Inputs of networks that read more than text, and settings of parts that do.
_OTHER_INPUTS = ("pixel_values", "pixel_values_videos", "input_features", "input_values", "bbox", "visual_embeds")
_OTHER_INPUTS += ("visual_feats", "image_embeds", "audio_codes", "audio_input_ids", "protein_input_ids", "entity_ids")
_OTHER_PARTS = ("vision_config", "audio_config", "audio_encoder_config", "codec_config", "audio_encoder")
_OTHER_PARTS += ("protein_encoder_config", "flow_head_config")

WIDTH, HEADS, HEAD_DIM, LAYERS, EXPERTS = 32, 4, 8, 2, 4

_KV_HEADS = r".*(key_value|kv)_heads|num_kv_heads|n_head_kv"
_ALL_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")

# (pattern of the whole name, value), the first that matches; only whole numbers are replaced.
_RULES: tuple[tuple[str, int], ...] = (
    (r".*(num|n)_hidden_layers|n_layers?|num_layers|(num_)?(encoder|decoder)_layers|num_blocks", LAYERS),
    (_KV_HEADS, 2),
    (r"(num|n)_attention_heads|n_heads?|num_heads|(encoder|decoder)_attention_heads|num_global_attention_heads", HEADS),
    (
        r"(qk_nope|qk_rope|v|attention|global|kv|query|key|linear_key|linear_value|d)?_?head_dim|d_kv|rotary_dim",
        HEAD_DIM,
    ),
    (r"linear_num_(key|value)_heads", 2),
    (r"hidden_size|d_model|n_embd|(emb|model|embedding|hidden)_dim|embed_dim|dim|embedding_size|d_embed", WIDTH),
    (r"word_embed_proj_dim|hidden_dim_size|lru_width|.*residual_dim", WIDTH),
    (
        r".*(intermediate|ffn_hidden|feed_forward|ff_hidden)_(size|dim)|(encoder_|decoder_)?ffn_dim|d_ff|n_inner|d_inner",
        2 * WIDTH,
    ),
    (r"(ffn|moe|dense|shared|expert).*(dim|size)|.*_ffn_(dim|hidden_size)|ffn_hidden_size|hidden_dim", 2 * WIDTH),
    (r"num_(local_|routed_)?experts|n_routed_experts|moe_num_experts|num_moe_experts|n_experts", EXPERTS),
    (r"num_experts_per_tok(en)?|moe_k|moe_topk|num_selected_experts|.*experts_per_tok", 2),
    (r"n_group|topk_group|num_expert_group", 1),
    (r"first_k_dense_replace|num_dense_layers|n_shared_experts", 1),
    (r".*lora_rank|.*_rank|.*low_rank_dim", 8),
    (r"mamba_(n|num)_heads", 8),
    (r"mamba_d_head|mamba_head_?dim|linear_head_dim|hidden_size_per_layer_input", 8),
    (r"mamba_d_ssm", 2 * WIDTH),
    (r"(mamba_)?chunk_size", 8),
    (r"(mamba_|ssm_)?(d_state|state_size)|ssm_state_size", 8),
    (r"(.*_)?vocab_size(_per_layer_input)?|.*vocab.*size", 32),
    (
        r"max_position_embeddings|n_positions|n_ctx|max_seq_len(gth)?|max_(source|target)_positions|seq_length|max_(en|de)coder_position_embeddings",
        64,
    ),
    (r"zero_expert_num", 2),
    (r".*(pad|bos|eos|sep|cls|mask|unk|decoder_start)_token_id", 0),
)


def shrunk(values: dict[str, Any], layers: int | None = None) -> dict[str, Any]:
    """Settings like these, but small: widths, layers, heads, experts, vocabularies; nothing is dropped at random."""
    depth = layers or next((v for n, v in values.items() if re.fullmatch(_RULES[0][0], n) and isinstance(v, int)), 0)
    small: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("model_type", "transformers_version", "dtype", "architectures", "id2label", "label2id"):
            continue
        found = _small(name, value, depth)
        if re.fullmatch(_KV_HEADS, name) and value in (None, *(values.get(heads) for heads in _ALL_HEADS)):
            found = HEADS
        if found is not value:
            small[name] = found
    return small


def _small(name: str, value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        if name == "per_layer_config":  # settings of single layers: of the last one here
            return {LAYERS - 1: {**value[min(value)], **shrunk(value[min(value)])}} if value else value
        if "mrope_section" in value:
            return {**value, "mrope_section": [HEAD_DIM // 2 - 2, 1, 1]}
        return {**value, **shrunk(value)} if name.endswith(("config", "encoder", "decoder")) else value
    if name == "attention_window":
        return 4
    if isinstance(value, list):
        if depth > LAYERS and len(value) == depth:
            return _few(value)
        return value
    if isinstance(value, float) and ("drop" in name or name.endswith("_prob")):
        return 0.0
    if value is None and name == "head_dim":
        return HEAD_DIM
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return next((size for pattern, size in _RULES if re.fullmatch(pattern, name)), value)


def _few(kinds: list[Any]) -> list[Any]:
    """`LAYERS` elements that show as many kinds of layers as they can, in their order."""
    chosen = []
    for kind in kinds:
        if kind not in chosen:
            chosen.append(kind)
    return (chosen + [chosen[-1]] * LAYERS)[:LAYERS] if len(chosen) < LAYERS else chosen[-LAYERS:]


def _rope(sections: list[int], share: float = 1.0) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections, "partial_rotary_factor": share}


# What the rules do not fit, by model type: these settings come on top.
OVERRIDES: dict[str, dict[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": 32},
    "cohere_compass_text": {"rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), _rope([]))},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 2}},
    "esm": {"vocab_size": 32},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": EXPERTS},
    "dots1": {"num_experts_per_tok": 2, "n_routed_experts": EXPERTS, "n_shared_experts": 1},
    "gemma4_text": {"hidden_size_per_layer_input": 0},  # else it needs ids to look up vectors a layer
    "glm4v_text": {"rope_parameters": _rope([2, 1, 1])},
    "glm4v_moe_text": {"rope_parameters": _rope([1, 1, 0], 0.5)},
    "glm_image_text": {"rope_parameters": _rope([2, 1, 1])},
    "glm_ocr_text": {"rope_parameters": _rope([2, 1, 1])},
    "hunyuan_vl_text": {"rope_parameters": _rope([2, 1, 1])},
    "glm5_next_text": {"qk_rope_head_dim": 0},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "qwen2_5_vl_text": {"rope_parameters": _rope([2, 1, 1])},
    "qwen2_vl_text": {"rope_parameters": _rope([2, 1, 1])},
    "xmod": {"vocab_size": 32, "default_language": "en_XX", "languages": ["en_XX"]},
    "zaya": {"num_experts_per_tok": 1},
    "nemotron3_5_transcribe_word_timestamp": {"blank_token_id": 1},
}


def backbones(only: Collection[str] = ()) -> dict[str, type]:
    """Every text backbone whose ``forward`` takes ``inputs_embeds``: its model type and its class.

    Networks that read images or sound beside text are left out; their text parts are in, where they have a
    configuration of their own. A class that serves several model types counts once. With `only`, those of them.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    found: dict[type, str] = {}
    for model_type in list(CONFIG_MAPPING.keys()):  # it looks like a dict, and iterates only so
        names = MODEL_MAPPING_NAMES.get(model_type)
        if names is None or "tokenizer" in model_type or (only and model_type not in only):
            continue
        name = names if isinstance(names, str) else names[0]
        try:
            cls = getattr(transformers, name)
            inputs = inspect.signature(cls.forward).parameters
        except (AttributeError, ImportError):
            continue
        if "inputs_embeds" not in inputs or any(other in inputs for other in _OTHER_INPUTS):
            continue
        parts = set(getattr(CONFIG_MAPPING[model_type], "sub_configs", None) or {})
        if parts & set(_OTHER_PARTS):
            continue
        if cls not in found or cls.config_class.model_type == model_type:
            found[cls] = model_type
    return {model_type: cls for cls, model_type in sorted(found.items(), key=lambda pair: pair[1])}


def tiny_config(model_type: str) -> Any:
    """The configuration of a tiny network of a type; registered ones make their own."""
    from modeling.backbones.registry import transformer_registry

    if model_type in transformer_registry:
        return transformer_registry[model_type].build(WIDTH, HEADS, LAYERS, 10, dropout=0.0)
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[model_type]
    settings = {**shrunk(cls().to_dict()), **OVERRIDES.get(model_type, {})}
    return cls(**settings)
