# SPDX-License-Identifier: Apache-2.0
"""Every token of a text belongs to one window, that in which it is farthest from an edge."""

import itertools

import numpy as np
import pytest

from bcmb_jax.inference.windows import OVERLAP, Window, cut, divide

CLS, SEP = 1, 2


@pytest.mark.parametrize("longest", [3, 4, 16, 128, 1000])
@pytest.mark.parametrize("tokens", [0, 1, 13, 14, 15, 126, 127, 128, 1000, 5001])
def test_windows_share_and_own_tokens(tokens, longest) -> None:
    if longest < 16 and tokens > 200:
        pytest.skip("thousands of windows of one token")
    ids = np.arange(10, 10 + tokens, dtype=np.int32)
    windows = cut(ids, CLS, SEP, longest)
    assert all(len(window.tokens) <= longest for window in windows)
    assert all(window.tokens[0] == CLS and window.tokens[-1] == SEP for window in windows)
    owned = np.concatenate([window.tokens[window.first : window.stop] for window in windows])
    np.testing.assert_array_equal(owned, [CLS, *ids, SEP])
    # To the nearest edge inside the text; the text's own ends are no edges.
    places = [window.tokens[1:-1] - 10 for window in windows]
    edges = [
        (x[0] if x[0] else -tokens, x[-1] if x[-1] < tokens - 1 else 2 * tokens)
        for x in places
        if len(x)
    ]
    for window, place in zip(windows, places, strict=True):
        for position in range(max(1, window.first), min(window.stop, len(window.tokens) - 1)):
            token = place[position - 1]
            distances = [
                min(token - left, right - token) for left, right in edges if left <= token <= right
            ]
            own = place[0] or -tokens, place[-1] if place[-1] < tokens - 1 else 2 * tokens
            assert min(token - own[0], own[1] - token) >= max(distances) - 1  # ties, and halves
    if len(windows) > 1:
        shared = [a[-1] + 1 - b[0] for a, b in itertools.pairwise(places)]
        assert min(shared) >= (longest - 2) // OVERLAP
        assert len({len(window.tokens) for window in windows}) == 1
        fewer = len(windows) - 1
        room = longest - 2
        assert fewer * room - (fewer - 1) * (room // OVERLAP) < tokens


def test_owned_ranges_are_divided_before_a_mask_too_many() -> None:
    window = Window(np.array([CLS, 9, 5, 9, 9, 5, 9, SEP]), 2, 8)
    parts = divide(window, 9, 2)
    assert [(first, stop) for _, first, stop in parts] == [(2, 6), (6, 8)]
    assert divide(window, 9, 3) == [window]
    assert divide(window, 7, 1) == [window]
