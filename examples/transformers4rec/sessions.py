"""Made-up sessions for the programs beside this file, with a rule to find.

Visitors walk through a catalogue of 60 items in steps of 1, 2 or 3, so the next item follows from the last two.
Those in a hurry, who take steps of 3, buy. The schema is what `nextitem preprocess` would write for such data.
"""

from __future__ import annotations

import torch

import modeling as tr

ITEMS, LONGEST = 60, 20


def schema() -> tr.Schema:
    """Item id, its category, its price, and whether the session ended with a purchase."""
    column, tags = tr.schema.ColumnSchema, tr.Tags

    def events(name: str, *more: tr.Tags, **properties: object) -> object:
        counted = {"value_count": {"min": 1, "max": LONGEST}, **properties}
        return column(name, tags=list(more), is_list=True, is_ragged=True, properties=counted)

    return tr.Schema(
        [
            events("item_id", tags.ITEM_ID, tags.CATEGORICAL, domain={"min": 0, "max": ITEMS}),
            events("category", tags.CATEGORICAL, domain={"min": 0, "max": 6}),
            events("price", tags.CONTINUOUS),
            column("bought", tags=[tags.TARGET, tags.BINARY_CLASSIFICATION]),
        ]
    )


def batches(sessions: int, seed: int, batch_size: int = 128) -> list[dict[str, torch.Tensor]]:
    """Sessions of 3 to 20 events as right-padded columns [batch_size, 20]."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> torch.Tensor:
        return torch.randint(low, high, (sessions, 1), generator=generator)

    step, position = draw(1, 4), torch.arange(LONGEST)
    items = 1 + (draw(0, ITEMS) + step * position) % ITEMS
    items = items.masked_fill(position >= draw(3, LONGEST + 1), 0)
    real = items > 0
    columns = {
        "item_id": items,
        "category": (1 + (items - 1) // 10) * real,
        "price": (items % 7 - 3.0) / 2 * real,
        "bought": (step[:, 0] == 3).float(),
    }
    split = {name: column.split(batch_size) for name, column in columns.items()}
    return [dict(zip(split, parts, strict=True)) for parts in zip(*split.values(), strict=True)]
