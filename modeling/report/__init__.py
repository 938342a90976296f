"""The model card: `report.html` beside the weights, with how the training went, how good the model is, and examples."""

from modeling.report.facts import Figures, measure, peak_mib
from modeling.report.page import write_card

__all__ = ["Figures", "measure", "peak_mib", "write_card"]
