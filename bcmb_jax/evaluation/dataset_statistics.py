# SPDX-License-Identifier: Apache-2.0
"""What a dataset holds, as the paper's Table 6 tells it: examples, labels and tokens by split."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from bcmb_jax.data.plan import SPECIAL_TOKENS
from bcmb_jax.evaluation.examples import SPLITS, Dataset


@dataclass(frozen=True)
class SplitStatistics:
    """Of one split; tokens with the special ones.

    Attributes:
      empty: examples of which the tokenizer makes no token.
      by_label: how often each label holds, in the dataset's order (words, of tagging).
    """

    examples: int
    mean_tokens: float
    longest: int
    empty: int
    by_label: tuple[int, ...]


def statistics(
    dataset: Dataset,
    count_tokens: Callable[[str | tuple[str, ...]], int],
    special_tokens: int = SPECIAL_TOKENS,
) -> Mapping[str, SplitStatistics]:
    """By split; `count_tokens(text or words)` is without special tokens, which are added."""
    found = {}
    for split in SPLITS:
        examples = dataset.splits[split]
        tokens = [count_tokens(example.text) for example in examples]
        held = Counter(label for example in examples for label in example.labels)
        found[split] = SplitStatistics(
            examples=len(examples),
            mean_tokens=fmean(tokens) + special_tokens if tokens else 0.0,
            longest=max(tokens) + special_tokens if tokens else 0,
            empty=tokens.count(0),
            by_label=tuple(held[i] for i in range(len(dataset.labels))),
        )
    return found


def markdown(
    dataset: Dataset,
    found: Mapping[str, SplitStatistics],
    special_tokens: int = SPECIAL_TOKENS,
) -> str:
    """The statistics as two tables, by split and by label, and the dataset's notes."""
    lines = [
        f"{len(dataset.labels)} labels ({dataset.kind.replace('_', ' ')}); tokens with "
        f"{special_tokens} special ones",
        "",
        "| split | examples | mean tokens | longest | empty |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {split} | {of.examples:,} | {of.mean_tokens:,.1f} | {of.longest:,} | {of.empty:,} |"
        for split, of in found.items()
    ]
    lines += ["", f"| label | {' | '.join(found)} |", "|---" + "|---:" * len(found) + "|"]
    for i, label in enumerate(dataset.labels):
        counts = " | ".join(f"{of.by_label[i]:,}" for of in found.values())
        lines.append(f"| {label.replace('|', chr(92) + '|')} | {counts} |")
    if dataset.notes:
        lines += ["", *(f"- {note}" for note in dataset.notes)]
    return "\n".join(lines) + "\n"
