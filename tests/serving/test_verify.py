"""Any difference between the compiled program and the workflow is found, and named."""

import numpy as np
import pytest

from common.errors import UserError
from serving.runtime.program import Sessions
from serving.verify import compare


def offline():
    """What the workflow gives: two sessions, lists of their own lengths."""
    return {"session_id": ["a", "b"], "item_id": [[3, 4], [5]], "price": [[0.5, -1.0], [2.0]]}


def online():
    """The same from the program, padded, and with the sessions in another order."""
    return Sessions(
        session_id=np.array([b"b", b"a"], dtype=object),
        unknown_events=np.array([0, 0]),
        features={"item_id": np.array([[5, 0], [3, 4]]), "price": np.float32([[2.0, 0.0], [0.5, -1.0]])},
        requests=np.array([2]),
    )


def test_the_same_is_the_same():
    assert compare(offline(), online()) == 2


def test_rounding_of_fractions_is_no_difference():
    found = online()
    found.features["price"][1, 1] = np.nextafter(np.float32(-1.0), np.float32(0))
    assert compare(offline(), found) == 2


@pytest.mark.parametrize(
    ("feature", "place", "value", "session"),
    [("item_id", (1, 1), 5, "a"), ("price", (0, 0), 2.001, "b"), ("item_id", (0, 1), 7, "b")],
)
def test_a_difference_names_feature_and_session(feature, place, value, session):
    found = online()
    found.features[feature][place] = value
    with pytest.raises(UserError, match=rf"in '{feature}' of session {session}: .*nothing was written"):
        compare(offline(), found)


def test_a_session_that_only_one_has():
    whole = offline() | {"session_id": ["a", "c"]}
    with pytest.raises(UserError, match="differ in their sessions: b is in only one"):
        compare(whole, online())


def test_of_sessions_cut_by_inactivity_the_latest_counts():
    twice = {"session_id": ["a", "a", "b"], "item_id": [[9], [3, 4], [5]], "price": [[9.0], [0.5, -1.0], [2.0]]}
    assert compare(twice, online()) == 2
