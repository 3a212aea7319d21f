# SPDX-License-Identifier: Apache-2.0
"""The corpus, counted: a table of sources like the paper's Tables 1 and 4, a plot, a dataset card.

Everything comes from the `index.json` and `lengths.npy` of prepared folders.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bcmb_jax.data.ingest.sources import SOURCES, Source
from bcmb_jax.data.shards import Shards, open_shards
from bcmb_jax.errors import InputError

SPLITS = ("train", "validation")
BIOMEDICAL_TOKENS = 50.7e9
"""Of PubMed and PMC together (the paper, section 3.1.1)."""
COLUMNS = (
    "source",
    "country",
    "clinical source",
    "samples",
    "the paper's",
    "tokens",
    "the paper's",
    "difference",
    "left out",
)


class Entry(NamedTuple):
    """A prepared source, both splits together; tokens without special ones, as the paper counts."""

    name: str
    kind: str
    lengths: np.ndarray
    left_out: int
    license: str
    tokenizer: str
    source: Source | None
    """Its row in the table of the paper's datasets, if it is one."""

    @property
    def title(self) -> str:
        return self.source.title if self.source else self.name

    @property
    def documents(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))


def read_entry(folder: Path) -> Entry:
    """The entry of a folder that `prepare` wrote.

    Raises:
      InputError: it is none, or is damaged.
    """
    splits = [open_shards(folder / name) for name in SPLITS if (folder / name).is_dir()]
    if not splits:
        raise InputError(f"{folder} holds no train or validation: write it with prepare_data.py")
    first: Shards = splits[0]
    name = first.index["options"].get("source", first.name)
    source = SOURCES.get(name)
    return Entry(
        first.name,
        source.kind if source else "your own",
        np.concatenate([shards.lengths for shards in splits]),
        sum(first.index["skipped"].values()),  # of the whole source
        first.index["license"],
        first.tokenizer_fingerprint,
        source,
    )


def read_ledger(folders: Sequence[Path]) -> list[Entry]:
    """The entries in the order of the folders.

    Raises:
      InputError: the tokens of two folders are not of one tokenizer, and cannot be added up.
    """
    entries = [read_entry(folder) for folder in folders]
    for entry, folder in zip(entries, folders, strict=True):
        if entry.tokenizer != entries[0].tokenizer:
            raise InputError(
                f"{folder} was made with another tokenizer than {folders[0]}: their tokens cannot "
                "be added up; prepare it again with the same one"
            )
    return entries


def table(entries: Sequence[Entry]) -> str:
    """Markdown: a row a source, beside the paper's figures, and the sum of each kind."""
    rows = [_row(entry) for entry in entries]
    for kind in dict.fromkeys(entry.kind for entry in entries):
        of_kind = [entry for entry in entries if entry.kind == kind]
        rows.append(_sum(kind, of_kind))
    lines = [COLUMNS, ("---",) * 3 + ("---:",) * 6, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(entry: Entry) -> tuple[str, ...]:
    paper = entry.source.paper if entry.source else None
    country, clinical, samples, tokens, difference = ("",) * 5
    if paper:
        country, clinical = paper.country, paper.clinical_source
        samples, tokens = f"{paper.samples:,}", _millions(paper.tokens * 1e6)
        difference = f"{entry.documents - paper.samples:+,} samples"
    counted = f"{entry.documents:,}", samples, _millions(entry.tokens), tokens
    return entry.title, country, clinical, *counted, difference, f"{entry.left_out:,}"


def _sum(kind: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    documents, tokens = (sum(getattr(x, what) for x in entries) for what in ("documents", "tokens"))
    papers = [x.source.paper for x in entries if x.source and x.source.paper]
    samples = f"{sum(x.samples for x in papers):,}" if papers else ""
    expected = sum(x.tokens for x in papers) * 1e6 or None
    if kind == "biomedical":
        expected = BIOMEDICAL_TOKENS
    there = f"{tokens / expected:.1%} of the tokens" if expected else ""
    of_paper = _millions(expected) if expected else ""
    counts = f"{documents:,}", samples, _millions(tokens), of_paper
    left_out = f"{sum(x.left_out for x in entries):,}"
    return f"**{kind}, {len(entries)}**", "", "", *counts, there, left_out


def _millions(tokens: float) -> str:
    """Like the paper's tables, but with a digit more where there are few."""
    return f"{tokens / 1e6:,.{1 if tokens >= 1e7 else 3}f} M"


def card(entries: Sequence[Entry], title: str) -> str:
    """A draft of a dataset card in the Hub's form; what only its owner can know is marked."""
    agreements = "\n".join(
        f"- {x.title}: {x.license or 'TO BE STATED'}{f' ({x.source.url})' if x.source else ''}"
        for x in entries
    )
    total, fingerprint = sum(x.tokens for x in entries), entries[0].tokenizer[:12]
    documents = sum(x.documents for x in entries)
    return f"""---
language: en
pretty_name: {title}
task_categories: [fill-mask]
---

# {title}

{documents:,} documents, {total:,} tokens without special ones (tokenizer {fingerprint}),
counted on {datetime.date.today().isoformat()} by bcmb_jax.

{table(entries)}

![tokens and lengths by source](corpus.png)

## Licences and data use agreements

Each source keeps its own; those under an agreement may not be passed on, nor may models trained on
them beyond what it allows.

{agreements}

## To be written by whoever publishes this

Why these sources, how they were de-identified, who may use the result and for what, known gaps.
"""


def plot(entries: Sequence[Entry], path: Path) -> None:
    """Tokens of every source, and how long its documents are."""
    from matplotlib.figure import Figure

    shown = sorted(entries, key=lambda entry: entry.tokens)
    kinds = list(dict.fromkeys(entry.kind for entry in entries))
    colours = [f"C{kinds.index(entry.kind)}" for entry in shown]
    figure = Figure(figsize=(11, 1.4 + 0.4 * len(shown)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(shown))
    bars = left.barh(places, [entry.tokens for entry in shown], color=colours)
    left.bar_label(bars, [f" {_millions(entry.tokens)}" for entry in shown], fontsize=8)
    left.set_yticks(places, [entry.title for entry in shown])
    left.set_xscale("log")
    left.margins(x=0.25)
    left.set_xlabel("tokens")
    for kind in kinds:
        left.barh([0], [0], color=f"C{kinds.index(kind)}", label=kind)
    left.legend(loc="lower right")
    boxes = right.boxplot(
        [entry.lengths for entry in shown],
        orientation="horizontal",
        positions=list(places),
        widths=0.6,
        whis=(1, 99),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "black"},
    )
    for box, colour in zip(boxes["boxes"], colours, strict=True):
        box.set_facecolor(colour)
    right.set_xscale("log")
    right.axvline(8192, color="grey", linestyle="--", linewidth=1)
    right.annotate("8,192", (8192, 1), xycoords=("data", "axes fraction"), fontsize=8)
    right.set_xlabel("tokens of a document: median, quartiles, 1st to 99th percentile")
    figure.savefig(path, dpi=150)
