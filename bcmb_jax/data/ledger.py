# SPDX-License-Identifier: Apache-2.0
"""The corpus, counted: a table of sources like the paper's Tables 1 and 4, a plot, a dataset card.

Everything comes from the `index.json` and `lengths.npy` of prepared folders.
"""

import datetime
import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bcmb_jax.data.ingest import FORMATS, SOURCES, Source
from bcmb_jax.data.ingest.sources import Paper
from bcmb_jax.data.shards import open_shards
from bcmb_jax.errors import InputError
from bcmb_jax.sharing import escape_markdown

if TYPE_CHECKING:  # plots are asked for by few, and take a second to load
    from matplotlib.figure import Figure

BIOMEDICAL_TOKENS = 50.7e9
"""Tokens of PubMed and PMC together (the paper, section 3.1.1)."""
ROW = 8192
"""Tokens of a row of training: longer documents are cut."""
_COUNTS = (
    "source;country;clinical source;samples;the paper's;tokens;the paper's;difference;left out"
)
_LENGTHS = f"source;median;90 % have at most;longest;documents over {ROW:,};their tokens"


class Entry(NamedTuple):
    """A prepared source, both splits together; tokens without special ones, as the paper counts."""

    name: str
    kind: str
    lengths: np.ndarray
    left_out: int
    license: str
    tokenizer: str
    canaries: int
    source: Source | None
    """Its row in the table of the paper's datasets, if it is one."""

    @property
    def title(self) -> str:
        """Name in tables and plots."""
        return self.source.title if self.source else self.name

    @property
    def paper(self) -> Paper | None:
        """Counts that the paper gives, if it does."""
        return self.source.paper if self.source else None

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return int(self.lengths.sum(dtype=np.int64))


def list_sources() -> Iterator[str]:
    """Yield lines about all formats and sources that can be read, with the paper's counts."""
    for name, format in FORMATS.items():
        yield f"{name:8} {format.about} ({' '.join(file.lstrip('*') for file in format.files)})"
    for name, source in SOURCES.items():
        text = f", text in {source.text_column}" if source.text_column else ""
        paper = "no row of Table 1"
        if source.paper:
            paper = f"{source.paper.samples:,} samples, {source.paper.tokens:,} M tokens"
        yield (
            f"\n{name}: {source.title} ({source.kind}), {source.url}\n"
            f"  files    {' '.join(source.files)} (also .gz){text}\n"
            f"  group    {source.group}\n"
            f"  licence  {source.licence}\n"
            f"  paper    {paper}\n"
            f"  about    {source.about}"
        )


def read_entry(folder: Path) -> Entry:
    """Return the entry of a folder that `prepare` wrote.

    Raises:
      InputError: it holds no shards, or is damaged.
    """
    splits = [folder / name for name in ("train", "validation")]
    opened = [open_shards(split) for split in splits if split.is_dir()]
    if not opened:
        raise InputError(f"{folder} holds no train or validation: write it with bcmb prepare")
    first = opened[0]
    source = SOURCES.get(first.index["options"].get("source", first.name))
    return Entry(
        first.name,
        source.kind if source else "your own",
        np.concatenate([shards.lengths for shards in opened]),
        sum(first.index["skipped"].values()),  # of the whole source
        first.index["license"],
        first.tokenizer_fingerprint,
        (first.index["options"].get("canaries") or {}).get("sentences", 0),
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
    kinds = dict.fromkeys(entry.kind for entry in entries)
    sums = (_sum(kind, [entry for entry in entries if entry.kind == kind]) for kind in kinds)
    return _markdown(_COUNTS, 3, [*map(_row, entries), *sums])


def _markdown(columns: str, left: int, rows: Iterable[Sequence[str]]) -> str:
    names = columns.split(";")
    rule = ["---"] * left + ["---:"] * (len(names) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, rule, *rows))


def _row(entry: Entry) -> list[str]:
    country, clinical, samples, tokens, difference = ("",) * 5
    if paper := entry.paper:
        country, clinical = paper.country, paper.clinical_source
        samples, tokens = f"{paper.samples:,}", f"{paper.tokens:,g} M"
        share = entry.tokens / (paper.tokens * 1e6) - 1
        difference = f"{entry.documents - paper.samples:+,} samples, {share:+.1%} tokens"
    counted = [f"{entry.documents:,}", samples, _millions(entry.tokens), tokens]
    title = escape_markdown(entry.title)
    return [title, country, clinical, *counted, difference, f"{entry.left_out:,}"]


def _sum(kind: str, entries: Sequence[Entry]) -> list[str]:
    documents, tokens = sum(x.documents for x in entries), sum(x.tokens for x in entries)
    papers = {x.title: x.paper for x in entries if x.paper}.values()
    samples = f"{sum(paper.samples for paper in papers):,}" if papers else ""
    expected = sum(paper.tokens for paper in papers) * 1e6
    if kind == "biomedical":
        expected = BIOMEDICAL_TOKENS
    of_paper = share = ""
    if expected:
        of_paper, reached = f"{expected / 1e6:,g} M", tokens / expected
        share = f"{reached:.{1 if reached >= 0.01 else 3}%} of the tokens"
    counts = [f"{documents:,}", samples, _millions(tokens), of_paper]
    left_out = f"{sum(x.left_out for x in entries):,}"
    return [f"**{kind}, {len(entries)}**", "", "", *counts, share, left_out]


def _millions(tokens: float) -> str:
    """Format as the paper's tables do, but with two digits more where there are few."""
    return f"{tokens / 1e6:,.{1 if tokens >= 1e7 else 3}f} M"


def length_table(entries: Sequence[Entry]) -> str:
    """Return a Markdown table of document lengths, and the shares above a training row."""
    rows = []
    for entry in entries:
        counts = (*np.percentile(entry.lengths, (50, 90)), entry.lengths.max())
        beyond = entry.lengths > ROW
        shares = (beyond.mean(), entry.lengths[beyond].sum(dtype=np.int64) / entry.tokens)
        cells = [f"{count:,.0f}" for count in counts] + [f"{share:.1%}" for share in shares]
        rows.append([escape_markdown(entry.title), *cells])
    return _markdown(_LENGTHS, 1, rows)


def card(entries: Sequence[Entry], title: str) -> str:
    """Return a draft of a dataset card in the Hub's form, with marks where its owner must write."""
    template = (files(__package__) / "dataset_card.md").read_text("utf-8")
    return template.format(
        title=escape_markdown(title),
        name=json.dumps(title),
        documents=sum(x.documents for x in entries),
        tokens=sum(x.tokens for x in entries),
        tokenizer=entries[0].tokenizer[:12],
        date=datetime.date.today().isoformat(),
        table=table(entries),
        lengths=length_table(entries),
        agreements="\n".join(
            f"- {escape_markdown(x.title)}: {escape_markdown(x.license) or 'TO BE STATED'}"
            + (f" ({x.source.url})" if x.source else "")
            + (f"; {x.canaries:,} made-up canaries are planted in it" if x.canaries else "")
            for x in entries
        ),
    )


def make_figure(entries: Sequence[Entry]) -> "Figure":
    """Plot the tokens of every source beside the paper's, and the lengths of its documents."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(entry.kind for entry in entries))
    shown = sorted(entries, key=lambda entry: (-kinds.index(entry.kind), entry.tokens))
    figure = Figure(figsize=(11, 2.2 + 0.36 * len(shown)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    whiskers = {"whis": (1, 99), "showfliers": False, "medianprops": {"color": "black"}}
    placed = {"orientation": "horizontal", "positions": range(len(shown)), "widths": 0.55}
    lengths = [entry.lengths for entry in shown]
    boxes = right.boxplot(lengths, patch_artist=True, **placed, **whiskers)["boxes"]
    diamond = {"marker": "D", "facecolors": "none", "edgecolors": "black", "s": 30}
    for place, (entry, box) in enumerate(zip(shown, boxes, strict=True)):
        colour = f"C{kinds.index(entry.kind)}"
        box.set(facecolor=colour, alpha=0.7)
        if entry.paper:
            expected = entry.paper.tokens * 1e6
            left.plot([entry.tokens, expected], [place, place], color=colour, alpha=0.4)
            left.scatter([expected], [place], zorder=3, **diamond)
        left.scatter([entry.tokens], [place], color=colour, s=60, zorder=2)
        above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 7}
        left.annotate(_short(entry.tokens), (entry.tokens, place), **above)
    left.margins(x=0.1)
    left.set_xlabel("tokens")
    left.set_yticks(range(len(shown)), [entry.title for entry in shown])
    left.set_ylim(-0.7, len(shown) - 0.3)
    right.set_xlabel("tokens of a document: median, quartiles, 1st to 99th percentile")
    right.axvline(ROW, color="grey", linestyle="--", linewidth=1)
    top = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontsize": 8}
    right.annotate(f"{ROW:,}", (ROW, 1), **top)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda tokens, _: _short(tokens))
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    marks = [left.scatter([], [], color=f"C{n}", label=kind) for n, kind in enumerate(kinds)]
    if any(entry.paper for entry in entries):
        marks.append(left.scatter([], [], label="the paper's tokens", **diamond))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    documents, tokens = sum(x.documents for x in entries), sum(x.tokens for x in entries)
    figure.suptitle(f"{tokens:,} tokens in {documents:,} documents of {len(entries)} sources")
    return figure


def _short(tokens: float) -> str:
    """Format a number in three digits with its unit."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if tokens >= size:
            return f"{tokens / size:,.3g}{unit}"
    return f"{tokens:.3g}"
