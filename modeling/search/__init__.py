"""The search for settings: ``nextitem search`` tries them on the validation window, with Optuna.

========= =====================================================================
`space`   which settings may change, and in which ranges: ``search:`` of a YAML
`study`   trials one after the other, in a journal from which a search goes on
`trials`  what came of each
`page`    what was found, as a page with pictures that `plots` draws
`stage`   features/ in, search/ out
========= =====================================================================
"""
