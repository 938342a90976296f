"""What the reference does in each cell: how much its scores move when they must not."""

from __future__ import annotations

SOURCE = (
    "Transformers4Rec 23.12 with transformers 4.30.2, untrained, mean score 0.22: change of the scores with the target "
    "item / without 3 padding columns (evaluation) / between evaluation and serving. No entry: not "
    "measured, or not registered there."
)

# (architecture, masking): leak / padding / evaluation against inference.
REFERENCE: dict[tuple[str, str], str] = {
    ("xlnet", "clm"): "0.118 / 0.173 / 0.222",
    ("xlnet", "mlm"): "0 / 0.099 / 0.031",
    ("xlnet", "rtd"): "0 / 0.099 / 0.031 (trains as mlm)",
    ("xlnet", "plm"): "0 / 0 / 0.357",
    ("gpt2", "clm"): "0 / 0 / 0",
    ("transfo-xl", "clm"): "0 / 0 / 0",
    ("bert", "mlm"): "0 / 0.56 / 0.179",
    ("roberta", "mlm"): "0 / 0.086 / 0.025",
    ("albert", "mlm"): "0 / 0.188 / 0.058",
    ("albert", "clm"): "0.012 / 0.142 / 0.028",
    ("electra", "mlm"): "0 / 0.215 / 0.107",
    ("electra", "rtd"): "0 / 0.215 / 0.107 (trains as mlm)",
    ("electra", "clm"): "0.039 / 0.296 / 0.119",
    ("longformer", "mlm"): "0 / 0.191 / 0.096",
    ("longformer", "clm"): "0.023 / 0.155 / 0.069",
    ("reformer", "clm"): "does not run",
    ("reformer", "mlm"): "does not run",
}
