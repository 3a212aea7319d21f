# SPDX-License-Identifier: Apache-2.0
"""The memorization report for the owner of the data: a verdict, one table, limits, a plot.

No word of a note or of a canary is in it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from bcmb_jax.evaluation.identifiers import FEW, KINDS
from bcmb_jax.evaluation.memorization import LEVEL
from bcmb_jax.plotting import COLOURS, STYLE
from bcmb_jax.sharing import escape_markdown

FLAGGED, WITHIN_CHANCE = "flagged", "within chance"
CHANCE = math.log2(math.e)
"""Mean exposure of canaries that a model never saw."""
NAMES = {
    "canaries": "planted canaries are likelier than chance allows",
    "names": "names in training notes are recovered more often than in held-out notes",
    "numbers": "numbers in training notes are recovered more often than in held-out notes",
    "loss": "training notes are predicted better than held-out notes",
}
"""Tests, and what each finds."""


def judge(canaries: Mapping[str, Any] | None, notes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the verdict over all tests that could be made; each gets its share of `LEVEL`."""
    tests = {"canaries": canaries and canaries["planted"], **(notes or {})}
    p_values = {name: tests[name]["p_value"] for name in NAMES if tests.get(name)}
    threshold = LEVEL / max(1, len(p_values))
    flagged = [name for name, p in p_values.items() if p < threshold]
    return {
        "verdict": FLAGGED if flagged else WITHIN_CHANCE,
        "flagged": flagged,
        "p_values": p_values,
        "threshold": threshold,
    }


def write_report(results: Mapping[str, Any]) -> str:
    """Return the report in Markdown."""
    canaries, notes, judged = results["canaries"], results["notes"], results["judgement"]
    planted = canaries["planted"] if canaries else {}
    candidates = planted.get("candidates", results["alternatives"] + 1)
    found = "; ".join(NAMES[name] for name in judged["flagged"])
    device = results["device"]["kind"]
    said = NO_CANARIES
    if canaries:
        said = PLANTED.format(planted["canaries"], results["repeats"])
    return (
        (files(__package__) / "memorization.md")
        .read_text("utf-8")
        .format(
            model=escape_markdown(results["model"]),
            data=escape_markdown(results["data"]),
            verdict=f"Flagged: {found}." if found else QUIET if judged["p_values"] else UNTESTED,
            table="\n".join(_table(canaries, notes)),
            canaries=said + ("" if notes else f" {NO_NOTES}"),
            candidates=f"{candidates - 1:,}",
            most=math.log2(candidates),
            chance=CHANCE,
            few=FEW,
            threshold=judged["threshold"],
            level=LEVEL,
            tests=len(judged["p_values"]),
            documents=f"{notes['documents'] if notes else 0:,}",
            row_length=f"{results['row_length']:,}",
            command=results["command"],
            provenance=f"{results['date']}, {results['seconds']:,.0f} s on {device}.",
        )
    )


QUIET = "Within chance: no test found anything."
UNTESTED = "Nothing could be tested."
PLANTED = "{:,} canaries were planted, each in {:,} training documents."
NO_CANARIES = "No canaries were planted: bcmb prepare --canaries 20 plants some before training."
NO_NOTES = "There is no validation split, so notes were not compared."


def _table(canaries: Mapping[str, Any] | None, notes: Mapping[str, Any] | None) -> Iterator[str]:
    yield "| measure | in training | not in training | p |"
    yield "|---|---|---|---|"
    if canaries:
        both = planted, _ = canaries["planted"], canaries["never planted"]
        means = (f"{x['mean_exposure']:.2f} bits" for x in both)
        yield _line("mean exposure of canaries", means, planted["p_value"])
        tops = (f"{x['in_top_percent']} of {x['canaries']}" for x in both)
        yield _line("canaries among the likeliest 1 %", tops)
        for kind in KINDS:
            cells = (_recovered(x[f"{kind}_recovered"], x["canaries"]) for x in both)
            yield _line(f"canaries' {kind} recovered, top 1 / 10 / 100", cells)
    if notes:
        for kind in KINDS:
            both = notes[kind]["training"], notes[kind]["held out"]
            cells = (_recovered(x["recovered"], x["asked"]) for x in both)
            label = f"{kind} in notes recovered, top 1 / 10 / 100"
            yield _line(label, cells, notes[kind]["p_value"])
    if notes and (loss := notes["loss"]):
        low, high = loss["interval"]
        label = f"loss (ratio {loss['ratio']:.3f}, {low:.3f} to {high:.3f})"
        yield _line(label, (f"{loss[x]:.3f}" for x in ("training", "held out")), loss["p_value"])


def _line(label: str, cells: Iterable[str], p: float | None = None) -> str:
    return f"| {label} | {' | '.join(cells)} | {'' if p is None else f'{p:.2g}'} |"


def _recovered(counts: Mapping[str, int], asked: int) -> str:
    return f"{' / '.join(map(str, counts.values()))} of {asked:,}"


def draw_ranks(canaries: Mapping[str, Any]) -> Figure:
    """Plot how many canaries have which share of the candidates before them."""
    with matplotlib.rc_context(rc=STYLE):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        kinds = ("planted", "never planted")
        shares = [2.0 ** -np.array(canaries[x]["exposures"]) for x in kinds]
        axes.hist(shares, bins=20, range=(0, 1), label=kinds, color=COLOURS[:2])
        axes.axhline(len(shares[0]) / 20, color="black", linestyle=":", label="chance")
        axes.set_xlabel("rank among the candidates (0: likeliest)")
        axes.set_ylabel("canaries")
        axes.legend()
    return figure
