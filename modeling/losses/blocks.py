"""The arithmetic of the exact cross-entropy: softmax over a catalogue and its gradients, block by block.

A block of some items x some targets stays in the processor's cache from its matrix product to its last use, with the
items along the rows: all three products then read and write rows as they lie in memory. Powers are of two, which
processors compute three times as fast as those of e, and are taken relative to the score of the target: that needs no
search for the largest score, and makes the loss the logarithm of their sum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Powers held at once, all items of some targets; and what is too little or more than enough for a product.
_CPU_BUFFER, _GPU_BUFFER = 1 << 23, 1 << 26
_MIN_ROWS, _MAX_ROWS, _MIN_ITEMS = 64, 512, 64
# Half of the second-level cache of a core.
_BLOCK_BYTES = 1 << 19
# Sums of powers above it are taken again relative to the largest score.
_LARGE = 1e30
_LOG2_E = 1 / math.log(2)


class _Products:
    """The three products of an items' table with targets' vectors, in the tensors' own precision."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias * _LOG2_E if bias is not None else None

    def buffer(self, size: int) -> Tensor:
        """Room for powers."""
        return self.weight.new_empty(size)

    def own(self, hidden: Tensor, target: Tensor) -> Tensor:
        """The scores [N] of the targets' own items, as exponents of two."""
        scores = (hidden * self.weight[target]).sum(1) * _LOG2_E
        return scores + self.bias[target] if self.bias is not None else scores

    def targets(self, hidden: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """What `scores` takes, from vectors [R, D] and what to subtract from their scores [R]; and what was [R]."""
        self.shift = -shift
        return hidden * _LOG2_E, shift

    def scores(self, items: slice, targets: Tensor, out: Tensor) -> None:
        """Scores [items, R] less the shift, as exponents of two."""
        bias = self.bias[items, None] if self.bias is not None else None
        out.copy_(self.shift) if bias is None else torch.add(bias, self.shift, out=out)
        out.addmm_(self.weight[items], targets.T)

    def to_hidden(self, items: slice, powers: Tensor, total: Tensor) -> None:
        """Add the mean item of some powers [items, R] to `total` [R, D]."""
        total.addmm_(powers.T, self.weight[items])

    def parts(self, hidden: Tensor, share: Tensor) -> Tensor:
        """What `to_weight` takes, from vectors [R, D] and their shares [R] in the gradient."""
        self.share = share
        return hidden * share[:, None]

    def to_weight(self, powers: Tensor, parts: Tensor, total: Tensor, bias: Tensor | None, first: bool) -> None:
        """Add to the gradients [items, D] and [items] of the table and of its biases, or write them."""
        total.addmm_(powers, parts, beta=0 if first else 1)
        if bias is not None:
            bias.addmv_(powers, self.share, beta=0 if first else 1)


class _MixedProducts(_Products):
    """The same with factors in bfloat16; sums within a product, and over blocks, are in single precision.

    Scores leave their product rounded: so shift and bias are part of it, each as a sum of two numbers of 8 bits, and
    what is rounded is small where powers are large.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.width = weight.shape[1]
        extra = weight.new_ones(len(weight), 2 if bias is None else 4)
        if bias is not None:
            extra[:, 2:] = _halves(bias * _LOG2_E)
        self.table = torch.cat([weight.bfloat16(), extra.bfloat16()], dim=1)

    def buffer(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.bfloat16, device=self.table.device)

    def own(self, hidden: Tensor, target: Tensor) -> Tensor:
        # Of the rounded factors: an item that has all the probability then has a loss of zero, not below.
        items = self.table[target].to(hidden.dtype)
        scores = ((hidden * _LOG2_E).bfloat16() * items[:, : self.width]).sum(1)
        return scores + items[:, self.width + 2 :].sum(1)

    def targets(self, hidden: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        halves = _halves(-shift)
        ones = hidden.new_ones(len(hidden), self.table.shape[1] - self.width - 2)
        return torch.cat([hidden * _LOG2_E, halves, ones], dim=1).bfloat16(), -halves.sum(1)

    def scores(self, items: slice, targets: Tensor, out: Tensor) -> None:
        torch.mm(self.table[items], targets.T, out=out)

    def to_hidden(self, items: slice, powers: Tensor, total: Tensor) -> None:
        total += powers.T @ self.table[items, : self.width]

    def parts(self, hidden: Tensor, share: Tensor) -> Tensor:
        return torch.cat([hidden * share[:, None], share[:, None]], dim=1).bfloat16()

    def to_weight(self, powers: Tensor, parts: Tensor, total: Tensor, bias: Tensor | None, first: bool) -> None:
        found = powers @ (parts if bias is not None else parts[:, : self.width])
        for into, what in ((total, found[:, : self.width]), (bias, found[:, -1])):
            if into is not None:
                into.copy_(what) if first else into.add_(what)


def _halves(values: Tensor) -> Tensor:
    """Numbers [N] as two [N, 2] whose sum is close to them and each of which bfloat16 holds."""
    high = values.bfloat16().to(values.dtype)
    return torch.stack([high, (values - high).bfloat16().to(values.dtype)], dim=1)


def excess(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mixed: bool,
    into: tuple[Tensor, Tensor, Tensor | None] | None,
) -> Tensor:
    """Sum of the cross-entropies, and the softmax's part in the gradients of their mean.

    Parameters
    ----------
    hidden : Tensor [N, D], float
        Vectors of the targets.
    weight : Tensor [C, D], float
        Vectors of the classes.
    bias : Tensor [C], optional
        A number a class.
    target : Tensor [N], int64
        Classes.
    mixed : bool
        Multiply in bfloat16.
    into : tuple of Tensor, optional
        Where to write the sums of probability times vector: [N, D], [C, D] and, with a bias, [C]. They lack the
        targets' own part, which is less than zero. Without it only the loss is computed.

    Returns
    -------
    Tensor, scalar
    """
    rows, classes, gpu = len(hidden), len(weight), hidden.is_cuda
    most = _GPU_BUFFER // classes if gpu else min(_MAX_ROWS, _CPU_BUFFER // classes)
    # Chunks of one size: a short last one would cost nearly as much.
    chunk = math.ceil(rows / math.ceil(rows / max(_MIN_ROWS, most)))
    products = (_MixedProducts if mixed else _Products)(weight, bias)
    room = products.buffer(classes * chunk)
    block = classes if gpu else max(_MIN_ITEMS, _BLOCK_BYTES // (chunk * room.element_size()))
    blocks = [slice(start, min(start + block, classes)) for start in range(0, classes, block)]
    own = products.own(hidden, target)
    total = hidden.new_zeros((), dtype=torch.float32 if gpu else torch.float64)
    for start in range(0, rows, chunk):
        part = slice(start, min(start + chunk, rows))
        h, powers = hidden[part], room[: classes * (part.stop - start)].view(classes, -1)
        mean = torch.zeros_like(h) if into is not None else None
        shift, sums = _powers(products, blocks, h, own[part], powers, mean)
        if not sums.amax() < _LARGE:
            mean = mean.zero_() if mean is not None else None
            largest = _largest(products, blocks, h, powers)
            shift, sums = _powers(products, blocks, h, largest, powers, mean)
        total += sums.log().sum() + (shift - own[part]).sum() / _LOG2_E
        if into is not None and mean is not None:
            d_hidden, d_weight, d_bias = into
            share = 1 / (rows * sums)
            torch.mul(mean, share[:, None], out=d_hidden[part])
            parts = products.parts(h, share)
            for items in blocks:
                d_items = d_bias[items] if d_bias is not None else None
                products.to_weight(powers[items], parts, d_weight[items], d_items, first=start == 0)
    return total


def _powers(
    products: _Products, blocks: list[slice], hidden: Tensor, shift: Tensor, out: Tensor, mean: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Two to the power of score less shift, to `out` [C, R]: the shift as it was rounded [R], and the sums [R].

    To `mean` [R, D] the sum of power times item is added.
    """
    targets, shift = products.targets(hidden, shift)
    sums = torch.zeros_like(shift)
    for items in blocks:
        products.scores(items, targets, out[items])
        sums += out[items].exp2_().sum(0, dtype=sums.dtype)
        if mean is not None:
            products.to_hidden(items, out[items], mean)
    return shift, sums


def _largest(products: _Products, blocks: list[slice], hidden: Tensor, room: Tensor) -> Tensor:
    """The largest score of each target [R], as an exponent of two."""
    targets, _ = products.targets(hidden, torch.zeros_like(hidden[:, 0]))
    found = []
    for items in blocks:
        products.scores(items, targets, room[items])
        found.append(room[items].amax(0))
    return torch.stack(found).amax(0).to(hidden.dtype)
