"""Evidence of counts inside the model: what sessions of the training window say of pairs of items.

`module.ItemEvidence` adds it to a model's scores, `pairs` counts it, and `fitting.add_evidence` learns on the
validation window how much it weighs.
"""
