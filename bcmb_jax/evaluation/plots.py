# SPDX-License-Identifier: Apache-2.0
"""Plot results: scores with their spread, learning curves, speed by length, confusions.

Figures are matplotlib objects of their own: no pyplot, no global state.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from bcmb_jax.evaluation import published
from bcmb_jax.evaluation.results import Result, machine

# The palette of Okabe and Ito, distinct with any colour vision; after seven the line style changes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES, MARKERS = ("-", "--", ":", "-."), ("o", "s", "^", "D")
PAPER = "BioClinical ModernBERT base"
MOST_NUMBERED = 12
"""Most labels of a confusion matrix whose cells have room for a number."""

Style = tuple[str, str, str]
"""Colour, line and marker."""


def draw(
    tasks: Mapping[str, Sequence[Result]], speed: Sequence[Result], output: Path
) -> list[Path]:
    """Draw every plot that there are results for, and return the files.

    Args:
      tasks: fine-tuned results by task.
      output: an existing folder.
    """
    labels = dict.fromkeys(x.label for found in (*tasks.values(), speed) for x in found)
    choices = itertools.product(range(len(LINES)), COLOURS)
    styles = {
        label: (colour, LINES[i], MARKERS[i])
        for label, (i, colour) in zip(labels, itertools.cycle(choices), strict=False)
    }
    figures: dict[str, Figure] = {}
    if tasks:
        figures["scores"] = _scores(tasks, styles)
    for task, found in tasks.items():
        if trained := [x for x in found if any(x.values["curves"] or ())]:
            figures[f"curves-{task}"] = _curves(task, trained, styles)
    if speed:
        figures["speed"] = _speed(speed, styles)
    for task, found in tasks.items():
        single = [x for x in found if x.values["kind"] == "single_label"]
        if confused := [x for x in single if x.values["confusion"]]:
            figures[f"confusion-{task}"] = _confusions(task, confused)
    for name, figure in figures.items():
        figure.savefig(output / f"{name}.png", dpi=150)
    return [output / f"{name}.png" for name in figures]


def _scores(tasks: Mapping[str, Sequence[Result]], styles: Mapping[str, Style]) -> Figure:
    """Draw a panel for each task: the seeds, their median, and the bootstrap interval."""
    models = list(dict.fromkeys(x.label for found in tasks.values() for x in found))
    place = {label: i for i, label in enumerate(reversed(models))}
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(
        figsize=(2.2 + 3.3 * columns, 0.7 + rows * (0.9 + 0.32 * len(models))),
        layout="constrained",
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    theirs = published.SCORES[PAPER]
    for axes, (task, found) in zip(grid, tasks.items(), strict=False):
        for x in found:
            y, colour = place[x.label], styles[x.label][0]
            low, high = (100 * end for end in x.values["interval"])
            axes.plot([low, high], [y, y], color=colour, linewidth=5, alpha=0.3)
            seeds = [100 * score for score in x.values["per_seed"]]
            # Side by side, so that equal scores can be counted.
            shifts = np.linspace(-0.2, 0.2, len(seeds)) if len(seeds) > 1 else [0.0]
            axes.scatter(seeds, [y + z for z in shifts], s=14, color=colour, zorder=3)
            axes.scatter(
                [100 * x.values["median"]], [y], s=190, marker="|", color="black", zorder=4
            )
        if (score := theirs.get(task)) is not None:
            axes.axvline(score, color="0.4", linestyle="--", linewidth=1, zorder=0)
        axes.set_title(f"{_text(published.title(task))}", fontsize=10)
        axes.set_xlabel(f"{_metric(found)}, percent", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    grid[0].set_yticks(list(place.values()), [_text(x) for x in place], fontsize=8)
    grid[0].set_ylim(-0.6, len(models) - 0.4)
    for axes in grid[len(tasks) :]:
        axes.remove()
    handles = [
        Line2D([], [], color="0.3", marker="o", markersize=4, linestyle="", label="a seed"),
        Line2D([], [], color="black", marker="|", markersize=12, linestyle="", label="median"),
        Line2D([], [], color="0.3", linewidth=5, alpha=0.3, label="95 % bootstrap interval"),
    ]
    if any(task in theirs for task in tasks):
        handles.append(Line2D([], [], color="0.4", linestyle="--", label=f"{PAPER}, published"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _curves(task: str, found: Sequence[Result], styles: Mapping[str, Style]) -> Figure:
    """Draw training loss and validation score by epoch: means and ranges over seeds."""
    figure = Figure(figsize=(9, 3.6 + 0.12 * len(found)), layout="constrained")
    panels = figure.subplots(1, 2, gridspec_kw={"wspace": 0.06})
    for x in found:
        colour, line, _ = styles[x.label]
        for axes, what, scale in zip(panels, ("train_loss", "validation"), (1, 100), strict=True):
            by_epoch: dict[int, list[float]] = {}
            for seed in x.values["curves"]:
                for point in seed:
                    by_epoch.setdefault(point["epoch"], []).append(scale * point[what])
            epochs = sorted(by_epoch)
            means = [float(np.mean(by_epoch[e])) for e in epochs]
            axes.plot(epochs, means, line, color=colour, marker=".", label=_text(x.label))
            ends = [[f(by_epoch[e]) for e in epochs] for f in (min, max)]
            axes.fill_between(epochs, *ends, color=colour, alpha=0.15, linewidth=0)
    panels[0].set_ylabel("training loss")
    panels[1].set_ylabel(f"validation {_metric(found)}, percent")
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="0.9")
    figure.suptitle(
        f"{_text(published.title(task))}: means over seeds, and their range", fontsize=10
    )
    _legend(figure, panels[0].get_lines())
    return figure


def _speed(found: Sequence[Result], styles: Mapping[str, Style]) -> Figure:
    """Draw true tokens a second by a set's longest length: fixed lengths left, variable right."""
    figure = Figure(figsize=(9, 4 + 0.15 * len(found)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    lines: dict[str, Line2D] = {}
    several = len(set(map(machine, found))) > 1
    for x in found:
        colour, _, marker = styles[x.label]
        line = "-" if x.values["protocol"] == "honest" else ":"
        for padded in (False, True):
            name = f"{x.label}, {x.values['protocol']}, {'padded' if padded else 'packed'}"
            name += f", {machine(x)}" * several
            for axes, variable in zip(panels, (False, True), strict=True):
                own = sorted(
                    (y["length"], y["tokens_per_second"])
                    for y in x.values["results"]
                    if y["padded"] == padded and ("variable" in y["set"]) == variable
                )
                if not own:
                    continue
                (drawn,) = axes.plot(
                    *zip(*own, strict=True),
                    line,
                    color=colour,
                    marker=marker,
                    markerfacecolor="white" if padded else colour,
                    label=_text(name, most=90),
                )
                lines[name] = drawn
    ticks = sorted({y["length"] for x in found for y in x.values["results"]})
    for axes, name in zip(panels, ("fixed lengths", "variable lengths"), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.margins(x=0.08)
        axes.set_xlabel("longest document, tokens")
        axes.set_title(name, fontsize=10)
        axes.grid(color="0.9", which="both")
    panels[0].set_ylabel("true tokens a second")
    _legend(figure, list(lines.values()))
    return figure


def _confusions(task: str, found: Sequence[Result]) -> Figure:
    """Draw a panel for each model: how often each true label was predicted as each label."""
    size = max(len(x.values["confusion"]["labels"]) for x in found)
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    side = 1.6 + 0.42 * min(size, 24)
    figure = Figure(figsize=(1 + side * columns, 0.6 + side * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, x in zip(grid, found, strict=False):
        labels, counts = (
            x.values["confusion"]["labels"],
            np.asarray(x.values["confusion"]["counts"]),
        )
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
        names = [_text(label, most=24) for label in labels]
        small = 8 if size <= MOST_NUMBERED else 5
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
        axes.set_yticks(range(len(names)), names, fontsize=small)
        if size <= MOST_NUMBERED:
            for (i, j), count in np.ndenumerate(counts):
                ink = "white" if share[i, j] > 0.5 else "black"
                axes.text(j, i, f"{count}", ha="center", va="center", fontsize=7, color=ink)
        axes.set_title(_text(x.label), fontsize=9)
        axes.set_xlabel("predicted", fontsize=8)
        axes.set_ylabel("true", fontsize=8)
    for axes in grid[len(found) :]:
        axes.remove()
    bar = figure.colorbar(image, ax=list(grid[: len(found)]), shrink=0.8)
    bar.set_label("share of the true label", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(f"{_text(published.title(task))}: the seed of the median", fontsize=10)
    return figure


def _legend(figure: Figure, lines: Sequence[Line2D]) -> None:
    columns = 1 if any(len(str(x.get_label())) > 45 for x in lines) else 2
    figure.legend(
        handles=list(lines),
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
    )


def _metric(found: Sequence[Result]) -> str:
    return _text(found[0].values["metric"]).replace("_f1", " F1").replace("f1", "F1")


def _text(name: str, most: int = 40) -> str:
    """Escape `$`, which would begin a formula, and cut long names in the middle."""
    if len(name) > most:
        name = f"{name[: most // 2]}…{name[-most // 2 + 1 :]}"
    return "".join(c if c.isprintable() else " " for c in name).replace("$", r"\$")
