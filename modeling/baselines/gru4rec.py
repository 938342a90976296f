"""GRU4Rec: a recurrent network over item vectors, in the frame of our own models.

After Hidasi et al., "Session-based recommendations with recurrent neural networks", 2016, and Hidasi and Karatzoglou,
"Recurrent neural networks with top-k gains for session-based recommendations", 2018 (whose losses ``bpr-max`` and
``top1-max`` are in `modeling.losses`). Sessions are whole and padded here, instead of parallel streams; the vectors of
items are shared between input and output, as in the second paper.
"""

from __future__ import annotations

from types import SimpleNamespace

from torch import Tensor, nn

from modeling.backbones.block import TransformerBlock
from modeling.blocks.sequential import SequentialBlock
from modeling.inputs.features import TabularSequenceFeatures
from modeling.model import Model
from modeling.schema import Feature
from modeling.settings import ModelSettings
from modeling.tasks.head import Head
from modeling.tasks.next_item import NextItemPredictionTask


class GRU(nn.Module):
    """Gated recurrent units, with the face of a Hugging Face backbone.

    Parameters
    ----------
    width : int
        Of the vectors that come in and go out.
    layers : int
        How many, one on top of the other.
    dropout : float
        Of the vectors that come in, and between layers.
    """

    def __init__(self, width: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="gru", hidden_size=width)
        self.drop = nn.Dropout(dropout)
        self.units = nn.GRU(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def forward(self, inputs_embeds: Tensor) -> tuple[Tensor]:
        """Vectors [B, L, width] from such; padding on the right is behind all that is read."""
        return (self.units(self.drop(inputs_embeds))[0],)


def gru4rec(item: Feature, max_sequence_length: int, settings: ModelSettings) -> Model:
    """An untrained GRU4Rec over item ids, to be trained by `modeling.fitting.fit`.

    Parameters
    ----------
    item : Feature
        The item column.
    max_sequence_length : int
        The most events of a session.
    settings : ModelSettings
        Width (``d_model``), dropout, loss and label smoothing; its architecture is of no matter. There is one layer,
        as in the papers.
    """
    width = settings.d_model
    inputs = TabularSequenceFeatures([item], max_sequence_length, masking="clm", embedding_dims={item.name: width})
    body = SequentialBlock(inputs, TransformerBlock(GRU(width, dropout=settings.dropout), inputs.masking))
    task = NextItemPredictionTask(
        loss=settings.loss, weight_tying=True, label_smoothing=settings.label_smoothing, output_bias=True
    )
    return Model(Head(body, task))
