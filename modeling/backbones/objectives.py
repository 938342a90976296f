"""What each registered architecture can be trained for: a table that costs nothing to import.

Causal objectives ("clm") need a backbone that cannot look ahead, masked ones ("mlm", and "rtd", whose detector reads
the same body) one that can. Permutations ("plm") need a second stream that does not see the item it predicts.
"""

from __future__ import annotations

_MASKED = ("mlm", "rtd")

# The first objective of each is its default.
SUPPORTED: dict[str, tuple[str, ...]] = {
    "gpt2": ("clm",),
    "transfo-xl": ("clm",),
    "llama": ("clm",),
    "qwen3": ("clm",),
    "mamba2": ("clm",),
    "sasrec": ("clm",),
    "esasrec": ("clm",),
    "hstu": ("clm",),
    "xlnet": ("mlm", "clm", "plm", "rtd"),
    "longformer": ("mlm", "clm", "rtd"),
    "reformer": ("mlm", "clm", "rtd"),
    "roformer": ("mlm", "clm", "rtd"),
    "albert": _MASKED,
    "bert": _MASKED,
    "convbert": _MASKED,
    "deberta": _MASKED,
    "deberta-v2": _MASKED,
    "distilbert": _MASKED,
    "electra": _MASKED,
    "funnel": _MASKED,
    "megatron-bert": _MASKED,
    "modernbert": _MASKED,
    "mpnet": _MASKED,
    "roberta": _MASKED,
}
OBJECTIVES = ("clm", "mlm", "plm", "rtd")
_WHY = {
    "clm": "it sees the items that it would have to predict",
    "mlm": "it cannot look ahead",
    "rtd": "it cannot look ahead",
    "plm": "it has no second stream that hides the item to predict",
}


def check_pair(model_type: str, masking: str) -> None:
    """Refuse an objective that a backbone cannot honour.

    Raises
    ------
    ValueError
        Naming both, why, and what is supported.
    """
    if model_type not in SUPPORTED:
        known = ", ".join(SUPPORTED)
        raise ValueError(f"backbones of type {model_type!r} are not supported: use one of {known}")
    objectives = SUPPORTED[model_type]
    if masking not in objectives:
        why = _WHY.get(masking, f"the objectives are {', '.join(OBJECTIVES)}")
        raise ValueError(f"{model_type} does not support masking {masking!r} ({why}): use {', '.join(objectives)}")
