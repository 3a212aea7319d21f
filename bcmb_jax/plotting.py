# SPDX-License-Identifier: Apache-2.0
"""One look for every plot of the project. Nothing here imports matplotlib.

A drawing begins with `matplotlib.rc_context(rc=STYLE)`, so that the style ends with it.
"""

from typing import Any

STYLE: dict[Any, Any] = {  # matplotlib types the keys as its own literals
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.titlesize": 10,
    "font.size": 8,
    "grid.color": "0.9",
    "legend.frameon": False,
    "savefig.dpi": 150,
}
# The palette of Okabe and Ito, distinct with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def two_digits(number: float) -> str:
    """Write a number with two significant digits: 12345 as `12,000`, 0.1234 as `0.12`."""
    rounded = float(f"{number:.1e}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:.2g}"
