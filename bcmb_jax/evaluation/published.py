# SPDX-License-Identifier: Apache-2.0
"""Numbers of the paper's Tables 2, 3, 5 and 6 (arXiv 2506.10896), from `published.toml`."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from itertools import zip_longest
from typing import NamedTuple

_DATA = tomllib.loads(resources.files(__package__).joinpath("published.toml").read_text("utf-8"))

TASKS: dict[str, str] = _DATA["tasks"]
SPEED_SETS = tuple(f"{x} {y}" for x in ("short", "medium", "long") for y in ("fixed", "variable"))
SPEED_MACHINE = "A100 40GB"
SPEED_DOCUMENTS = "8,192 (its code: 4,096)"

Values = Mapping[str, float | None]


class Statistics(NamedTuple):
    """A row of Table 6: counts by split; tokens include `[CLS]` and `[SEP]`."""

    labels: int
    examples: tuple[int, int, int]
    mean_tokens: tuple[float, float, float]


SCORES: dict[str, Values] = {
    model: dict(zip_longest(TASKS, row)) for model, row in _DATA["scores"].items()
}
SPEEDS: dict[str, Values] = {
    model: dict(zip(SPEED_SETS, row, strict=False)) for model, row in _DATA["speeds"].items()
}
LEARNING_RATES: dict[str, dict[str, float]] = _DATA["learning_rates"]
STATISTICS = {task: Statistics(**row) for task, row in _DATA["statistics"].items()}


def title(task: str) -> str:
    """Return a task's name in the paper, or ours."""
    return TASKS.get(task, task)
