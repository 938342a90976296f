"""What it means that a model is right: seven checks, for every architecture and for backbones of one's own.

::

    from modeling.checks import run_checks

    def make(features, max_sequence_length):
        inputs = tr.TabularSequenceFeatures(features, max_sequence_length, d_output=32, masking="clm")
        body = tr.SequentialBlock(inputs, tr.TransformerBlock(my_backbone()))
        return tr.Model(tr.Head(body, tr.NextItemPredictionTask(weight_tying=True)))

    for result in run_checks(make):
        print(result.name, result.passed, result.detail)
"""

from __future__ import annotations

from modeling.checks.result import Result
from modeling.checks.run import CHECKS, cell_maker, run_check, run_checks

__all__ = ["CHECKS", "Result", "cell_maker", "run_check", "run_checks"]
