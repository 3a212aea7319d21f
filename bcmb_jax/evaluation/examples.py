# SPDX-License-Identifier: Apache-2.0
"""A task, its dataset, and the statistics of a dataset: what readers, models and scores share."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Literal, NamedTuple

from bcmb_jax.agreements import Agreement
from bcmb_jax.data.plan import SPECIAL_TOKENS

Kind = Literal["single_label", "multi_label", "tagging"]
Text = str | tuple[str, ...]
SPLITS = ("train", "validation", "test")
OWN_FILES = "your own files"
"""The source of a task whose data the user brings."""


class Example(NamedTuple):
    """One text and the labels to be predicted for it.

    Attributes:
      where: the file and line or record, for messages.
      text: a document, or (tagging) the words of a sentence.
      labels: indices into the dataset's labels: one (single_label), all that hold, in ascending
        order (multi_label), or one for each word (tagging).
    """

    where: str
    text: Text
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """The examples of a task.

    Attributes:
      labels: names of the labels; for tagging, BIO tags (`B-Disease`, `I-Disease`, …, `O`).
      splits: examples by split, one of `SPLITS`.
      notes: what a user should know about this copy of the data (what was odd, and how often).
    """

    kind: Kind
    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[Example]]
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return the SHA-256 of the labels and of every example."""
        digest = hashlib.sha256(json.dumps([self.kind, *self.labels]).encode())
        for split, examples in sorted(self.splits.items()):
            digest.update(split.encode())
            for example in examples:
                digest.update(json.dumps([example.text, example.labels]).encode())
        return digest.hexdigest()


class Task(NamedTuple):
    """A named way to read a dataset as it is distributed, described in `tasks/tasks.toml`.

    Attributes:
      read: turns a folder into its dataset. It takes `corrected=True` where `quirks` says what that
        changes, and otherwise only the options in `options`.
      learning_rates: by size, "base" and "large": the paper's Table 5, or defaults.
    """

    name: str
    kind: Kind
    read: Callable[..., Dataset]
    learning_rates: Mapping[str, float]
    about: str
    source: str
    files: str
    quirks: str = ""
    classes: tuple[str, ...] = ()
    options: Mapping[str, str] = MappingProxyType({})

    def agreement(self, license: str) -> Agreement:
        """Return that of its data: `license`, else the terms of its source, if those are known."""
        terms = "" if self.source == OWN_FILES else self.source
        return Agreement(f"{self.name} (fine-tuning)", license or terms)


class SplitStatistics(NamedTuple):
    """Counts of one split; tokens include the special ones.

    Attributes:
      empty: examples for which the tokenizer makes no token.
      by_label: how often each label holds, in the dataset's order (for tagging: words).
    """

    examples: int
    mean_tokens: float
    longest: int
    empty: int
    by_label: tuple[int, ...]


def dataset_statistics(
    dataset: Dataset, count_tokens: Callable[[Text], int], special_tokens: int = SPECIAL_TOKENS
) -> dict[str, SplitStatistics]:
    """Count examples, tokens and labels of every split, as in the paper's Table 6.

    Args:
      count_tokens: counts the tokens of a text without special ones, which are added here.
    """
    statistics = {}
    for split in SPLITS:
        examples = dataset.splits[split]
        tokens = [count_tokens(example.text) for example in examples]
        counts = Counter(label for example in examples for label in example.labels)
        statistics[split] = SplitStatistics(
            examples=len(examples),
            mean_tokens=fmean(tokens) + special_tokens if tokens else 0.0,
            longest=max(tokens) + special_tokens if tokens else 0,
            empty=tokens.count(0),
            by_label=tuple(counts[i] for i in range(len(dataset.labels))),
        )
    return statistics


def statistics_tables(
    dataset: Dataset,
    statistics: Mapping[str, SplitStatistics],
    special_tokens: int = SPECIAL_TOKENS,
) -> str:
    """Format statistics as two Markdown tables, by split and by label, and the dataset's notes."""
    lines = [
        f"{len(dataset.labels)} labels ({dataset.kind.replace('_', ' ')}); tokens with "
        f"{special_tokens} special ones",
        "",
        "| split | examples | mean tokens | longest | empty |",
        "|---|---:|---:|---:|---:|",
    ]
    for split, x in statistics.items():
        lines.append(
            f"| {split} | {x.examples:,} | {x.mean_tokens:,.1f} | {x.longest:,} | {x.empty:,} |"
        )
    lines += ["", f"| label | {' | '.join(statistics)} |", "|---" + "|---:" * len(statistics) + "|"]
    for i, label in enumerate(dataset.labels):
        cells = [label.replace("|", r"\|"), *(f"{x.by_label[i]:,}" for x in statistics.values())]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [""] * bool(dataset.notes) + [f"- {note}" for note in dataset.notes]
    return "\n".join(lines) + "\n"
