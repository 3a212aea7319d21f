# SPDX-License-Identifier: Apache-2.0
"""The corpus, counted: a table of sources like the paper's Tables 1 and 4, a plot, a dataset card.

Everything comes from the `index.json` and `lengths.npy` of prepared folders.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bcmb_jax.data.ingest import SOURCES, Source
from bcmb_jax.data.shards import Shards, open_shards
from bcmb_jax.errors import InputError

if TYPE_CHECKING:  # plots are asked for by few, and take a second to load
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLITS = ("train", "validation")
BIOMEDICAL_TOKENS = 50.7e9
"""Tokens of PubMed and PMC together (the paper, section 3.1.1)."""
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
ROW = 8192
"""Tokens of a row of training: longer documents are cut."""
LENGTH_COLUMNS = (
    "source",
    "median",
    "90 % have at most",
    "longest",
    f"documents over {ROW:,}",
    "their tokens",
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
        """Name in tables and plots."""
        return self.source.title if self.source else self.name

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return int(self.lengths.sum(dtype=np.int64))


def read_entry(folder: Path) -> Entry:
    """Return the entry of a folder that `prepare` wrote.

    Raises:
      InputError: it holds no shards, or is damaged.
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
    """Return the entries in the order of the folders.

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
    """Return a Markdown table: a row a source beside the paper's figures, and sums by kind."""
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
        samples, tokens = f"{paper.samples:,}", f"{paper.tokens:,g} M"
        share = entry.tokens / (paper.tokens * 1e6) - 1
        difference = f"{entry.documents - paper.samples:+,} samples, {share:+.1%} tokens"
    counted = f"{entry.documents:,}", samples, _millions(entry.tokens), tokens
    return entry.title, country, clinical, *counted, difference, f"{entry.left_out:,}"


def _sum(kind: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    documents, tokens = (sum(getattr(x, what) for x in entries) for what in ("documents", "tokens"))
    papers = {x.source.title: x.source.paper for x in entries if x.source and x.source.paper}
    samples = f"{sum(x.samples for x in papers.values()):,}" if papers else ""
    expected = sum(x.tokens for x in papers.values()) * 1e6 or None
    if kind == "biomedical":
        expected = BIOMEDICAL_TOKENS
    share = tokens / expected if expected else 0
    there = f"{share:.{1 if share >= 0.01 else 3}%} of the tokens" if expected else ""
    of_paper = f"{expected / 1e6:,g} M" if expected else ""
    counts = f"{documents:,}", samples, _millions(tokens), of_paper
    left_out = f"{sum(x.left_out for x in entries):,}"
    return f"**{kind}, {len(entries)}**", "", "", *counts, there, left_out


def _millions(tokens: float) -> str:
    """Format as the paper's tables do, but with a digit more where there are few."""
    return f"{tokens / 1e6:,.{1 if tokens >= 1e7 else 3}f} M"


def length_table(entries: Sequence[Entry]) -> str:
    """Return a Markdown table of document lengths, and the shares above a training row."""
    lines: list[tuple[str, ...]] = [LENGTH_COLUMNS, ("---",) + ("---:",) * 5]
    for entry in entries:
        median, most = np.percentile(entry.lengths, (50, 90))
        beyond = entry.lengths > ROW
        shares = (beyond.mean(), entry.lengths[beyond].sum(dtype=np.int64) / entry.tokens)
        counts = (f"{length:,.0f}" for length in (median, most, entry.lengths.max()))
        lines.append((entry.title, *counts, *(f"{share:.1%}" for share in shares)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def card(entries: Sequence[Entry], title: str) -> str:
    """Return a draft of a dataset card in the Hub's form, with marks where its owner must write."""
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

Tokens of a document:

{length_table(entries)}

![tokens and lengths by source](corpus.png)

## Licences and data use agreements

Each source keeps its own; those under an agreement may not be passed on, nor may models trained on
them beyond what it allows.

{agreements}

## To be written by whoever publishes this

Why these sources, how they were de-identified, who may use the result and for what, known gaps.
"""


def make_figure(entries: Sequence[Entry]) -> "Figure":
    """Plot the tokens of every source beside the paper's, and the lengths of its documents."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(entry.kind for entry in entries))
    shown = sorted(entries, key=lambda entry: (-kinds.index(entry.kind), entry.tokens))
    colours = [f"C{kinds.index(entry.kind)}" for entry in shown]
    figure = Figure(figsize=(11, 2.2 + 0.36 * len(shown)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _plot_tokens(left, shown, colours)
    _plot_lengths(right, shown, colours)
    left.set_yticks(range(len(shown)), [entry.title for entry in shown])
    left.set_ylim(-0.7, len(shown) - 0.3)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda tokens, _: _short(tokens))
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    marks = [left.scatter([], [], color=f"C{n}", label=kind) for n, kind in enumerate(kinds)]
    if any(entry.source and entry.source.paper for entry in entries):
        marks.append(left.scatter([], [], label="the paper's tokens", **_OF_PAPER))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    documents, tokens = sum(x.documents for x in entries), sum(x.tokens for x in entries)
    figure.suptitle(f"{tokens:,} tokens in {documents:,} documents of {len(entries)} sources")
    return figure


_OF_PAPER: dict[str, Any] = {"marker": "D", "facecolors": "none", "edgecolors": "black", "s": 30}


def _plot_tokens(axes: "Axes", shown: Sequence[Entry], colours: Sequence[str]) -> None:
    for place, (entry, colour) in enumerate(zip(shown, colours, strict=True)):
        if entry.source and entry.source.paper:
            expected = entry.source.paper.tokens * 1e6
            axes.plot([entry.tokens, expected], [place, place], color=colour, alpha=0.4)
            axes.scatter([expected], [place], zorder=3, **_OF_PAPER)
        axes.scatter([entry.tokens], [place], color=colour, s=60, zorder=2)
        axes.annotate(
            _short(entry.tokens),
            (entry.tokens, place),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_xlabel("tokens")
    axes.margins(x=0.1)


def _plot_lengths(axes: "Axes", shown: Sequence[Entry], colours: Sequence[str]) -> None:
    boxes = axes.boxplot(
        [entry.lengths for entry in shown],
        orientation="horizontal",
        positions=list(range(len(shown))),
        widths=0.55,
        whis=(1, 99),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "black"},
    )
    for box, colour in zip(boxes["boxes"], colours, strict=True):
        box.set(facecolor=colour, alpha=0.7)
    axes.axvline(ROW, color="grey", linestyle="--", linewidth=1)
    axes.annotate(f"{ROW:,}", (ROW, 1), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    axes.set_xlabel("tokens of a document: median, quartiles, 1st to 99th percentile")


def _short(tokens: float) -> str:
    """Format a number in three digits with its unit."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if tokens >= size:
            return f"{tokens / size:,.3g}{unit}"
    return f"{tokens:.3g}"
