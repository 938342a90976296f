"""Ragged columns, and sessions cut before each of their events."""

import pytest
import torch

from modeling.padding import pad_inputs, pad_ragged, prefixes


def test_ragged_columns_are_padded_on_the_right() -> None:
    values, offsets = torch.tensor([5, 6, 7, 8]), torch.tensor([0, 3, 3, 4])
    assert pad_ragged(values, offsets).tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0]]
    vectors = pad_ragged(torch.arange(8.0).view(4, 2), offsets)
    assert vectors.shape == (3, 3, 2)
    assert vectors[2].tolist() == [[6, 7], [0, 0], [0, 0]]
    assert pad_ragged(values[:0], torch.tensor([0])).shape == (0, 0)


@pytest.mark.parametrize("offsets", [[0, 3], [1, 4], [0, 3, 2, 4], []])
def test_broken_offsets_are_told(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets must rise from 0"):
        pad_ragged(torch.tensor([5, 6, 7, 8]), torch.tensor(offsets, dtype=torch.long))


def test_pairs_become_columns() -> None:
    batch = {"item__values": torch.tensor([5, 6]), "item__offsets": torch.tensor([0, 1, 2]), "age": torch.ones(2)}
    padded = pad_inputs(batch)
    assert set(padded) == {"item", "age"}
    assert padded["item"].tolist() == [[5], [6]]
    del batch["item__offsets"]
    with pytest.raises(ValueError, match="no 'item__offsets'"):
        pad_inputs(batch)


def test_every_event_but_the_first_follows_a_prefix() -> None:
    items = torch.tensor([[5, 6, 7], [8, 0, 0], [9, 4, 0]])
    vectors = items[..., None] * torch.tensor([1.0, 10.0])
    found, following = prefixes({"item": items, "vector": vectors, "age": torch.tensor([1.0, 2.0, 3.0])}, "item")
    assert following.tolist() == [6, 7, 4]
    assert found["item"].tolist() == [[5, 0, 0], [5, 6, 0], [9, 0, 0]]
    assert found["vector"][:, :, 1].tolist() == [[50, 0, 0], [50, 60, 0], [90, 0, 0]]
    assert found["age"].tolist() == [1, 1, 3]
