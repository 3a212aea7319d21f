# SPDX-License-Identifier: Apache-2.0
"""Labels by name and index, and what is odd about where they occur."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bcmb_jax.data.ingest.record import Document
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Example
from bcmb_jax.evaluation.tasks.folder import place

_MOST_SHOWN = 20


def encode(labels: Sequence[str], names: Iterable[str], where: str, hint: str = "") -> list[int]:
    """The indices of names; `InputError` for one that is no label."""
    index = {label: i for i, label in enumerate(labels)}
    indices = []
    for name in names:
        if name not in index:
            known = ", ".join(labels[:_MOST_SHOWN]) + ", …" * (len(labels) > _MOST_SHOWN)
            raise InputError(
                f"{where}: unknown label {name!r}, none of {known}{hint and ': '}{hint}"
            )
        indices.append(index[name])
    return indices


def labelled(
    row: Document, file: Path, labels: Sequence[str], names: Iterable[str], hint: str = ""
) -> Example:
    """A row of a table, and the names of its labels, which may repeat."""
    held = encode(labels, names, place(file, row.line), hint)
    return Example(place(row.file, row.line), row.text, tuple(sorted(set(held))))


def bio_tags(kinds: Iterable[str]) -> tuple[str, ...]:
    """B- of every kind, I- of every kind, O."""
    ordered = sorted(set(kinds))
    return (*(f"B-{kind}" for kind in ordered), *(f"I-{kind}" for kind in ordered), "O")


def untrained(labels: Sequence[str], splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A note if labels occur that no training example has."""
    held = {split: {i for e in examples for i in e.labels} for split, examples in splits.items()}
    missing = sorted(set().union(*held.values()) - held["train"])
    if not missing:
        return []
    return [
        f"training has no example of {', '.join(labels[i] for i in missing)}, which validation or "
        "test have"
    ]


def counted(oddities: Mapping[str, int] | Counter[str]) -> list[str]:
    """A note for whatever happened at all."""
    return [f"{count:,} {what}" for what, count in oddities.items() if count]
