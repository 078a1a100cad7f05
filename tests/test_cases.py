"""What the other tests rest on: no difference goes unseen, and no two axes or blocks are alike."""

import numpy as np
import pytest
from cases import B, H, I, O, T, assert_close, make_case
from mutations import assert_seen, mutated

from jrnn.derivation import jacobians

ONES = {"a": np.ones((2, 3)), "b": np.ones(2)}
OTHERS = {
    "a relative 1e-9 in one element": {"a": np.array([[1, 1, 1], [1, 1 + 1e-9, 1]])},
    "NaN": {"b": np.array([1, np.nan])},
    "another shape": {"b": np.ones((2, 1))},
    "another array": {"c": np.ones(2)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_differences_are_seen(other):
    assert_close(ONES, ONES, rtol=0.0)
    with pytest.raises(AssertionError):
        assert_close(ONES | OTHERS[other], ONES)


def test_a_fault_is_planted_once_and_seen():
    for times, text in ((0, "result @ J_r"), (4, "result")):
        with pytest.raises(AssertionError, match=f"product: {times} times {text}"):
            mutated(jacobians.product, text, "")
    with pytest.raises(AssertionError):
        assert_seen(ONES, ONES)


def test_arrays_are_generic():
    assert len({T, B, I, H, O}) == 5
    w_hh = make_case().params.w_hh
    assert np.abs(w_hh - w_hh.T).max() > 0.1
