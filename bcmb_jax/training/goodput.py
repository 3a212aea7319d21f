# SPDX-License-Identifier: Apache-2.0
"""Where the time of a run went, over all its attempts: the ledger, its summary and its plot.

`bcmb_jax.training.clock` writes the ledger while a run trains.
"""

import contextlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.files import new_file
from bcmb_jax.terminal import Display

REPEATED = ("step", "data", "evaluation", "save")
"""Phases whose time is lost where the next attempt begins from an earlier step."""
PHASES = (*REPEATED, "compile", "start", "end")
"""`step`: what the devices needed, and the host between two steps; `data`: while the devices had
nothing to do; `save`: while a save held training up; `start`: imports, opening the data, restoring;
`end`: until the last checkpoint is written, and this plot."""
CATEGORIES = (*PHASES, "lost", "down")
"""`down`: between two attempts no process ran, or none that got as far as the ledger."""
COLOURS = (
    *("#009E73", "#E69F00", "#56B4E9", "#0072B2", "#CC79A7", "#F0E442", "#999999"),
    *("#D55E00", "#DDDDDD"),
)

WORTH_TELLING = 60.0
"""Seconds of a run below which there is neither summary nor plot."""
ASSUMED = 86_400.0
"""Seconds between failures, as long as none was seen."""


class Entry(NamedTuple):
    """A line of the ledger: an attempt as far as it had come."""

    began: float
    """Seconds since 1970, as `time`; it also tells attempts apart."""
    time: float
    first: int | None
    """The step that training went on from; None before it did."""
    step: int
    """The step being made, or after which there is an evaluation or a save."""
    saves: int
    ended: bool
    """Whether the attempt came to its own end, with everything saved."""
    seconds: dict[str, float]
    """Seconds by phase; they add up to `time - began`."""


def read(file: Path) -> list[list[Entry]]:
    """Return the lines of a ledger by attempt, without those that a kill has cut off."""
    entries = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = Entry(**json.loads(line))
            entries.append(entry._replace(seconds={x: float(entry.seconds[x]) for x in PHASES}))
    by_attempt = itertools.groupby(entries, lambda entry: entry.began)
    return [_settled(list(lines)) for _, lines in by_attempt]


def _settled(entries: list[Entry]) -> list[Entry]:
    """Return the lines with each compilation booked as it went on; the clock does when it ends."""
    seconds = entries[-1].seconds
    for i, entry in reversed(list(enumerate(entries))):
        seconds = {name: min(x, seconds[name]) for name, x in entry.seconds.items()}
        seconds["compile"] += sum(entry.seconds.values()) - sum(seconds.values())
        entries[i] = entry._replace(seconds=seconds)
    return entries


def history(attempts: Sequence[Sequence[Entry]]) -> Iterator[tuple[float, dict[str, float]]]:
    """Yield times, and the seconds of the whole run up to then by category, in order.

    A phase of an attempt is lost from the step on that a later attempt went on from.
    """
    before, ended = dict.fromkeys(CATEGORIES, 0.0), attempts[0][0].began
    for number, entries in enumerate(attempts, 1):
        before = before | {"down": before["down"] + max(entries[0].began - ended, 0.0)}
        ended = entries[-1].time
        yield entries[0].began, before
        later = [x[-1].first for x in attempts[number:]]
        kept_steps = min((x for x in later if x is not None), default=entries[-1].step)
        so_far, kept = before, dict.fromkeys(PHASES, 0.0)
        for entry in entries:
            kept = entry.seconds if entry.step <= kept_steps else kept
            so_far = before.copy()
            for name, seconds in entry.seconds.items():
                lost = seconds - kept[name] if name in REPEATED else 0.0
                so_far[name] += seconds - lost
                so_far["lost"] += lost
            yield entry.time, so_far
        before = so_far


def summary(attempts: Sequence[Sequence[Entry]]) -> str:
    """Return one line on where the time of a run went, and one on the interval between saves."""
    *_, (_, seconds) = history(attempts)
    parts = [f"{name} {_span(x)}" for name, x in seconds.items() if name != "down" and x >= 0.05]
    running = sum(seconds.values()) - seconds["down"]
    down = f"; down {_span(seconds['down'])} between them" if len(attempts) > 1 else ""
    text = (
        f"goodput {seconds['step'] / running:.1%} of {_span(running)} in {len(attempts)} "
        f"attempt{'s' * (len(attempts) > 1)}: {', '.join(parts)}{down}"
    )
    ends = [entries[-1] for entries in attempts]
    trained = [x for x in ends if x.first is not None]
    failures = sum(not x.ended for x in trained if x is not ends[-1])
    saves, steps = sum(x.saves for x in ends), sum(x.step - (x.first or 0) for x in trained)
    if not saves or not steps:
        return text
    cost = sum(x.seconds["save"] for x in ends) / saves
    seconds_per_step = sum(x.seconds["step"] + x.seconds["data"] for x in ends) / steps
    # Young and Daly: saving costs cost / interval of the time, a failure half an interval.
    between = running / failures if failures else max(running, ASSUMED)
    every = max(1, round(math.sqrt(2 * cost * between) / seconds_per_step))
    why = f"{failures} seen" if failures else "none seen, an assumption"
    return (
        f"{text}\nleast would be lost with --config.save_every={float(f'{every:.2g}'):.0f}: a save "
        f"holds training up {_span(cost)}, a failure every {_span(between)} ({why})"
    )


def _span(seconds: float) -> str:
    size, unit = _unit(seconds)
    return f"{seconds / size:.{1 if seconds >= 1 else 2}f} {unit}"


def _unit(seconds: float) -> tuple[float, str]:
    return (3600.0, "h") if seconds >= 7200 else (60.0, "min") if seconds >= 120 else (1.0, "s")


def draw(attempts: Sequence[Sequence[Entry]], file: Path) -> None:
    """Plot the time of a run by category over the clock: the stack's upper edge is the diagonal."""
    from matplotlib.figure import Figure

    times, seconds = zip(*history(attempts), strict=True)
    size, unit = _unit(times[-1] - times[0])
    shown = [x for x in CATEGORIES if seconds[-1][x] > 0]
    total = sum(seconds[-1].values())
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.stackplot(
        [(x - times[0]) / size for x in times],
        [[max(row[name], 0.0) / size for row in seconds] for name in shown],
        labels=[f"{x}  {_span(seconds[-1][x])}  ({seconds[-1][x] / total:.1%})" for x in shown],
        colors=[COLOURS[CATEGORIES.index(name)] for name in shown],
    )
    for entries in attempts[1:]:
        axes.axvline((entries[0].began - times[0]) / size, color="black", linewidth=0.6)
    axes.set_xlabel(f"time since the run began ({unit}); a line where it was started again")
    axes.set_ylabel(f"time by what it went to ({unit})")
    axes.margins(0)
    axes.legend(loc="upper left", reverse=True)
    with new_file(file) as out:
        figure.savefig(out, dpi=150, format="png")


def tell(file: Path) -> None:
    """Print the summary of a ledger and draw its plot beside it, if the run was not too short."""
    attempts = read(file)
    if attempts and attempts[-1][-1].time - attempts[0][0].began >= WORTH_TELLING:
        draw(attempts, file.with_suffix(".png"))
        Display().say(f"{summary(attempts)}\nthe plot is {file.with_suffix('.png')}")
