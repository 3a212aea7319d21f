# SPDX-License-Identifier: Apache-2.0
"""What a task is, and what its data looks like once read: the one contract of readers, models and
metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["single_label", "multi_label", "tagging"]
SPLITS = ("train", "validation", "test")


class Example(NamedTuple):
    """One text and what is to be predicted of it.

    Attributes:
      where: its file and line or record, for messages.
      text: a document, or (tagging) the words of a sentence.
      labels: indices into the labels of the dataset: one (single_label), those that hold, in
        ascending order (multi_label), or one a word (tagging).
    """

    where: str
    text: str | tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """A task's examples.

    Attributes:
      labels: their names; of tagging, BIO tags (`B-Disease`, `I-Disease`, …, `O`).
      splits: examples by split, of `SPLITS`.
      notes: what a user should know of this copy of the data (what was odd, and how often).
    """

    kind: Kind
    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[Example]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A named way to read a dataset as it is distributed.

    Attributes:
      read: a folder → its dataset. Takes `corrected=True` where `quirks` says what that changes,
        and otherwise no options but those of `options`.
      source: where the data comes from and under which terms.
      files: what the folder holds.
      quirks: what the paper's own reader does that a user would not expect, and what `--corrected`
        does in its place; empty: nothing.
      learning_rates: of the paper's Table 5 by size, "base" and "large"; else a default for both.
      options: further options of `read`, by name, with help (`--text-column`).
    """

    name: str
    kind: Kind
    read: Callable[..., Dataset]
    about: str
    source: str
    files: str
    quirks: str = ""
    learning_rates: Mapping[str, float] = field(
        default_factory=lambda: {"base": 5e-5, "large": 3e-5}
    )
    options: Mapping[str, str] = field(default_factory=dict)
