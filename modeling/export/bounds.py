"""Bounds of the best score in each block of items, from 8-bit copies of the items' vectors.

Reading the vectors costs more than multiplying them, so the copies (a quarter of the bytes) say first which blocks can
hold an answer; those are scored in float32. Several sessions' vectors are rounded to 8 bits too and multiplied in
integers, which is exact; a single one's to bfloat16. What the rounding can have hidden is bounded. Write q for a
session's vector, w for an item's, and Q and W for what is left of them::

    |q.w - Q.W| = |q.(w - W) + (q - Q).W|  <=  |q| |w - W| + |q - Q| |W|          (Cauchy-Schwarz)

The norms of w - W and W are those of the block's worst item, computed in double precision at export; those of q and
q - Q are the request's. Sums of d float32 products, in any order, are wrong by at most d 2^-24 |q| |w|: the bounds
have room for three of them (here, in the scores that are answered, and in those of whoever compares) and for the few
roundings in between. So what is left out is not among the best of full float32 scoring, up to its own rounding.
"""

import torch
from torch import Tensor, nn

BLOCK = 64
# Items multiplied at once: few enough that their scores stay in the cache.
_CHUNK = 1 << 16
# Norms are computed exactly enough that this covers their own rounding.
_ROUND_UP = 1 + 1e-4


class BlockBounds(nn.Module):
    """Upper and lower bounds of the best score in each block of `BLOCK` items.

    Parameters
    ----------
    codes : Tensor [P, D], int8
        Items, divided by their scales; whole blocks.
    scales : Tensor [P], float32
        One an item, each a bfloat16 number.
    bias : Tensor [P] or [0], float32
        What is added to scores; empty for nothing.
    norms : Tensor [3, P / BLOCK], float32
        What the norms of a query, of its rounding error, and its inverse scale are multiplied with for the bounds.
    """

    packed: list[Tensor]

    def __init__(self, codes: Tensor, scales: Tensor, bias: Tensor, norms: Tensor) -> None:
        super().__init__()
        self.codes: Tensor = codes
        self.scales: Tensor = scales
        self.bias: Tensor = bias
        self.norms: Tensor = norms
        self.packed = []
        self.short_scales = scales.to(torch.bfloat16)
        self.chunk = _CHUNK
        self.block = BLOCK
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, bool]:
        return self.codes, self.scales, self.bias, self.norms, self.chunk, self.block, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, Tensor, int, int, bool]) -> None:
        self.codes, self.scales, self.bias, self.norms, self.chunk, self.block, self.training = state
        self.packed = []
        self.short_scales = self.scales.to(torch.bfloat16)
        if self.codes.device.type == "cpu" and self.codes.shape[0] > 0 and self.multiplies_exactly():
            for part in self.codes.split(self.chunk):
                self.packed.append(torch.ops.onednn.qlinear_prepack(part.contiguous(), None))

    @torch.jit.export
    def multiplies_exactly(self) -> bool:
        """Whether this processor's integer products are right: without VNNI, sums of two may be cut off at 16 bits."""
        width = self.codes.shape[1]
        queries = torch.stack([torch.full([width], 255), torch.zeros(width), torch.arange(width) * 37 % 256], 0)
        items = torch.stack([torch.full([width], 127), torch.full([width], -127), torch.arange(width) * 29 % 255 - 127])
        items = items.repeat(self.block, 1).to(torch.int8)
        found = product(queries.to(torch.uint8), torch.ops.onednn.qlinear_prepack(items, None), torch.ones(len(items)))
        return torch.equal(found.double(), (queries.double() - 128) @ items.double().t())

    def ready(self) -> bool:
        """Whether there is anything to multiply, and something to do it."""
        return len(self.packed) > 0

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds for sessions.

        Parameters
        ----------
        queries : Tensor [B, D], float32
            The sessions' vectors.

        Returns
        -------
        tuple of Tensor [B, blocks]
            Upper and lower bounds of the best score of each block, in a unit of each row's own; NaN where there are
            none, because something is infinite.
        """
        unit = queries.abs().amax(1, keepdim=True)
        unit = unit.masked_fill(unit == 0, 1.0)
        scaled = queries / unit
        if queries.shape[0] == 1 and self.bias.shape[0] == 0:
            return self.of_one(scaled)
        codes = (scaled * 127).round()
        margin = self.margin(scaled, codes / 127, 1 / unit)
        whole = (codes + 128).to(torch.uint8)
        maxima: list[Tensor] = []
        begin = 0
        for packed in self.packed:
            end = min(begin + self.chunk, self.scales.shape[0])
            scores = product(whole, packed, self.scales[begin:end])
            if self.bias.shape[0] > 0:
                scores.addr_(127 / unit.squeeze(1), self.bias[begin:end])
            maxima.append(scores.unflatten(1, [-1, self.block]).amax(2))
            begin = end
        best = torch.cat(maxima, 1) / 127
        return best + margin, best - margin

    def of_one(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds for one session: another kernel reads the items twice as fast, and answers in bfloat16."""
        short = scaled.to(torch.bfloat16)
        scores = torch._weight_int8pack_mm(short, self.codes, self.short_scales)
        best = scores.unflatten(1, [-1, self.block]).amax(2).float()
        # Rounding keeps the order, so the largest score is rounded like any other: by 2^-9 of itself at most.
        margin = self.margin(scaled, short.float(), torch.ones_like(scaled[:, :1])) + best.abs() * 2**-8
        return best + margin, best - margin

    def margin(self, exact: Tensor, rounded: Tensor, inverse: Tensor) -> Tensor:
        """By how much a block's best score can be wrong [B, blocks]."""
        error = torch.linalg.vector_norm(exact - rounded, dim=1, keepdim=True)
        return torch.cat([torch.linalg.vector_norm(exact, dim=1, keepdim=True), error, inverse], 1) @ self.norms


def product(queries: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    """(queries - 128) times the packed items, each times its scale: [B, P], float32 from sums that are exact."""
    zero = torch.zeros([1], dtype=torch.long)
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        queries, 1.0, 128, packed, scales, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


def block_bounds(vectors: Tensor, bias: Tensor | None) -> BlockBounds:
    """Round items to 8 bits.

    Parameters
    ----------
    vectors : Tensor [C, D], float32
        The items.
    bias : Tensor [C], optional
        What is added to their scores.
    """
    items, width = vectors.shape
    # The last item again, until the last block is full: that changes no maximum.
    index = torch.arange(-(-items // BLOCK) * BLOCK).clamp(max=items - 1)
    codes, scales, norms = [], [], []
    for part in index.split(_CHUNK):
        exact = vectors.detach()[part].double()
        # Rounded up to what bfloat16 holds, for the sake of both kernels.
        scale = (exact.abs().amax(1) / 127 * (1 + 2**-8)).bfloat16().float()
        # Below it, products are so small that processors may drop them.
        scale = scale.masked_fill(scale < 1e-30, 0)
        code = (exact / scale.double()[:, None]).nan_to_num(0, 0, 0).round().clamp(-127, 127)
        rounded = code * scale.double()[:, None]
        worst = [torch.linalg.vector_norm(v, dim=1).view(-1, BLOCK).amax(1) for v in (exact - rounded, rounded, exact)]
        codes.append(code.to(torch.int8))
        scales.append(scale)
        norms.append(torch.stack(worst))
    error, rounded, exact = torch.cat(norms, 1)
    slack = (4 * width + 64) * 2.0**-24
    added = torch.zeros(0) if bias is None else bias.detach()[index]
    most = torch.zeros_like(error) if bias is None else added.abs().double().view(-1, BLOCK).amax(1)
    size = torch.maximum(rounded, exact)
    bounds = torch.stack([error + slack * size, size, slack * most]) * _ROUND_UP + 1e-36
    return BlockBounds(torch.cat(codes), torch.cat(scales), added, bounds.float())
