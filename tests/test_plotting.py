# SPDX-License-Identifier: Apache-2.0
"""Numbers on plots have two significant digits."""

import pytest

from bcmb_jax.plotting import two_digits


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (0.1234, "0.12"), (9.96, "10"), (12.3, "12"), (12345.0, "12,000")],
)
def test_numbers_have_two_significant_digits(number: float, text: str) -> None:
    assert two_digits(number) == text
