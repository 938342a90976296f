"""Options of a request: checked, and turned into codes."""

import numpy as np
import pytest

from serving.runtime.columns import RequestError
from serving.runtime.options import Limits, read_options
from serving.runtime.vocabulary import Vocabulary

LIMITS = Limits(top_k=5, listed=4)
TEXT = Vocabulary([b"tea", b"mug", b"cup"])
NUMBERS = Vocabulary([70, 80, 90], buckets=2)


def test_nothing_asked_for():
    options = read_options({}, TEXT, LIMITS)
    assert (options.top_k, options.exclude_seen, options.excluded, options.candidates) == (5, False, None, None)


def test_everything_asked_for():
    raw = {
        "top_k": np.array([2]),
        "exclude_seen": np.array([True]),
        "excluded": np.array([b"cup", b"never seen", b"", b"cup"], dtype=object),
        "candidates": np.array([b"mug", b"tea"], dtype=object),
    }
    options = read_options(raw, TEXT, LIMITS)
    assert (options.top_k, options.exclude_seen) == (2, True)
    assert options.excluded.tolist() == [5]
    assert options.candidates.tolist() == [3, 4]


def test_buckets_of_unknown_items_are_no_items():
    options = read_options({"candidates": np.array([90, 1, 2, 3])}, NUMBERS, LIMITS)
    assert options.candidates.tolist() == [7]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"top_k": np.array([0])}, "'top_k' is 0: ask for 1 to 5 items"),
        ({"top_k": np.array([6])}, "'top_k' is 6: ask for 1 to 5 items"),
        ({"top_k": np.array([-(2**63)])}, "ask for 1 to 5 items"),
        ({"top_k": np.array([], dtype=np.int64)}, "'top_k' has 0 values: send one"),
        ({"exclude_seen": np.array([True, False])}, "'exclude_seen' has 2 values: send one"),
        ({"excluded": np.full(5, b"tea", dtype=object)}, "'excluded' has 5 items: send at most 4"),
        ({"candidates": np.full(5, b"tea", dtype=object)}, "'candidates' has 5 items: send at most 4"),
    ],
)
def test_what_is_out_of_range_is_refused(raw, message):
    with pytest.raises(RequestError) as caught:
        read_options(raw, TEXT, LIMITS)
    assert message in str(caught.value)
