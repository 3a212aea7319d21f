# SPDX-License-Identifier: Apache-2.0
"""Plot results: scores with their spread, learning curves, speed by length, confusions.

Figures are matplotlib objects of their own: no pyplot, and a style that ends with the drawing.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from bcmb_jax.evaluation import published
from bcmb_jax.evaluation.results import Result, machine
from bcmb_jax.files import new_file
from bcmb_jax.plotting import COLOURS, STYLE

# After the colours of the palette the line style changes.
LINES_AND_MARKERS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
PAPER = "BioClinical ModernBERT base"
MOST_NUMBERED = 12
"""Most labels of a confusion matrix whose cells have room for a number."""

Style = tuple[tuple[str, str], str]
"""Line and marker, colour."""


def draw(
    tasks: Mapping[str, Sequence[Result]], speed: Sequence[Result], output: Path
) -> list[Path]:
    """Draw every plot that there are results for, and return the files.

    Args:
      tasks: fine-tuned results by task.
      output: an existing folder.
    """
    labels = dict.fromkeys(x.label for found in (*tasks.values(), speed) for x in found)
    looks = itertools.cycle(itertools.product(LINES_AND_MARKERS, COLOURS))
    styles = dict(zip(labels, looks, strict=False))
    figures: dict[str, Figure] = {}
    with matplotlib.rc_context(rc=STYLE):
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
            with new_file(output / f"{name}.png") as out:
                figure.savefig(out, format="png")
    return [output / f"{name}.png" for name in figures]


def _scores(tasks: Mapping[str, Sequence[Result]], styles: Mapping[str, Style]) -> Figure:
    """Draw a panel for each task: the seeds, their median, and the bootstrap interval."""
    models = list(dict.fromkeys(x.label for found in tasks.values() for x in found))
    height = {label: i for i, label in enumerate(reversed(models))}
    figure, panels = _panels(len(tasks), 3.3, 0.9 + 0.32 * len(models), sharey=True)
    theirs = published.SCORES[PAPER]
    for axes, (task, found) in zip(panels, tasks.items(), strict=True):
        for x in found:
            y, colour = height[x.label], styles[x.label][1]
            interval, seeds, median = (
                100 * np.array(x.values[key]) for key in ("interval", "per_seed", "median")
            )
            axes.plot(interval, [y, y], color=colour, linewidth=5, alpha=0.3)
            # Side by side, so that equal scores can be counted.
            shifts = np.linspace(-0.2, 0.2, len(seeds)) if len(seeds) > 1 else 0.0
            axes.scatter(seeds, y + shifts + 0 * seeds, s=14, color=colour, zorder=3)
            axes.scatter([median], [y], s=190, marker="|", color="black", zorder=4)
        if (score := theirs.get(task)) is not None:
            axes.axvline(score, color="0.4", linestyle="--", linewidth=1, zorder=0)
        axes.set_title(_text(published.title(task)))
        axes.set_xlabel(f"{_metric(found)}, percent")
    panels[0].set_yticks(list(height.values()), [_text(x) for x in height])
    panels[0].set_ylim(-0.6, len(models) - 0.4)
    handles = [
        Line2D([], [], color="0.3", marker="o", markersize=4, linestyle="", label="a seed"),
        Line2D([], [], color="black", marker="|", markersize=12, linestyle="", label="median"),
        Line2D([], [], color="0.3", linewidth=5, alpha=0.3, label="95 % bootstrap interval"),
    ]
    if any(task in theirs for task in tasks):
        handles.append(Line2D([], [], color="0.4", linestyle="--", label=f"{PAPER}, published"))
    _legend(figure, handles)
    return figure


def _curves(task: str, found: Sequence[Result], styles: Mapping[str, Style]) -> Figure:
    """Draw training loss and validation score by epoch: means and ranges over seeds."""
    figure = Figure(figsize=(9, 3.6 + 0.12 * len(found)))
    panels = figure.subplots(1, 2)
    for x in found:
        (line, _), colour = styles[x.label]
        points = [point for seed in x.values["curves"] for point in seed]
        epochs = sorted({point["epoch"] for point in points})
        for axes, key, scale in zip(panels, ("train_loss", "validation"), (1, 100), strict=True):
            seeds = [[scale * y[key] for y in points if y["epoch"] == epoch] for epoch in epochs]
            means, least, most = ([f(y) for y in seeds] for f in (fmean, min, max))
            axes.plot(epochs, means, line, color=colour, marker=".", label=_text(x.label))
            axes.fill_between(epochs, least, most, color=colour, alpha=0.15, linewidth=0)
    panels[0].set_ylabel("training loss")
    panels[1].set_ylabel(f"validation {_metric(found)}, percent")
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(f"{_text(published.title(task))}: means over seeds, and their range")
    _legend(figure, panels[0].get_lines())
    return figure


def _speed(found: Sequence[Result], styles: Mapping[str, Style]) -> Figure:
    """Draw true tokens a second by a set's longest length: fixed lengths left, variable right."""
    figure = Figure(figsize=(9, 4 + 0.15 * len(found)))
    panels = figure.subplots(1, 2, sharey=True)
    lines: dict[str, Line2D] = {}
    several = len(set(map(machine, found))) > 1
    for x, padded, (axes, kind) in itertools.product(
        found, (False, True), zip(panels, ("fixed", "variable"), strict=True)
    ):
        (_, marker), colour = styles[x.label]
        protocol = x.values["protocol"]
        name = f"{x.label}, {protocol}, {'padded' if padded else 'packed'}"
        name += f", {machine(x)}" * several
        own = sorted(
            (y["length"], y["tokens_per_second"])
            for y in x.values["results"]
            if y["padded"] == padded and ("variable" in y["set"]) == (kind == "variable")
        )
        if own:
            (lines[name],) = axes.plot(
                *zip(*own, strict=True),
                "-" if protocol == "honest" else ":",
                color=colour,
                marker=marker,
                markerfacecolor="white" if padded else colour,
                label=_text(name, most=90),
            )
        axes.set_title(f"{kind} lengths")
    ticks = sorted({y["length"] for x in found for y in x.values["results"]})
    for axes in panels:
        axes.set(xscale="log", yscale="log", xlabel="longest document, tokens")
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.margins(x=0.08)
    panels[0].set_ylabel("true tokens a second")
    _legend(figure, list(lines.values()))
    return figure


def _confusions(task: str, found: Sequence[Result]) -> Figure:
    """Draw a panel for each model: how often each true label was predicted as each label."""
    size = max(len(x.values["confusion"]["labels"]) for x in found)
    side = 1.6 + 0.42 * min(size, 24)
    figure, panels = _panels(len(found), side, side)
    for axes, x in zip(panels, found, strict=True):
        counts = np.asarray(x.values["confusion"]["counts"])
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
        names = [_text(label, most=24) for label in x.values["confusion"]["labels"]]
        small = 8 if size <= MOST_NUMBERED else 5
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
        axes.set_yticks(range(len(names)), names, fontsize=small)
        if size <= MOST_NUMBERED:
            for (i, j), count in np.ndenumerate(counts):
                ink = "white" if share[i, j] > 0.5 else "black"
                axes.text(j, i, f"{count}", ha="center", va="center", fontsize=7, color=ink)
        axes.set(title=_text(x.label), xlabel="predicted", ylabel="true")
        axes.grid(False)
    figure.colorbar(image, ax=panels, shrink=0.8, label="share of the true label")
    figure.suptitle(f"{_text(published.title(task))}: the seed of the median")
    return figure


def _panels(
    count: int, width: float, height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` panels of this size, three in a row."""
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2 + width * columns, 0.7 + height * rows))
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for unused in panels[count:]:
        unused.remove()
    return figure, panels[:count]


def _legend(figure: Figure, lines: Sequence[Line2D]) -> None:
    columns = 1 if any(len(str(x.get_label())) > 45 for x in lines) else 2
    figure.legend(handles=list(lines), loc="outside lower center", ncols=columns)


def _metric(found: Sequence[Result]) -> str:
    return _text(found[0].values["metric"]).replace("_f1", " F1").replace("f1", "F1")


def _text(name: str, most: int = 40) -> str:
    """Escape `$`, which would begin a formula, and cut long names in the middle."""
    if len(name) > most:
        name = f"{name[: most // 2]}…{name[-most // 2 + 1 :]}"
    return "".join(c if c.isprintable() else " " for c in name).replace("$", r"\$")
