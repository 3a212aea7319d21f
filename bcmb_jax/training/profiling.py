# SPDX-License-Identifier: Apache-2.0
"""Where the time of a program goes: a trace for TensorBoard or XProf, and a table of it by part.

Parts are the `jax.named_scope`s of the model and the training step; they reach the trace through
the names that the compiled program keeps of its operations.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bcmb_jax.device import target

PARTS = (
    "masking",
    "embeddings",
    "norm",
    "qkv",
    "rotary",
    "local_attention",
    "global_attention",
    "attention_output",
    "dropout",
    "mlp",
    "head",
    "decoder",
    "optimizer",
)
OTHER = "other"
PASSES = ("forward", "recomputed", "backward")


class Event(NamedTuple):
    """An operation as it ran on one thread or stream."""

    line: str
    operation: str
    start: float
    end: float


def record(directory: Path, run: Callable[[], object], programs: Iterable[str]) -> str:
    """Trace one call of `run` into `directory`, and say where its time went.

    Args:
      run: returns when its work is done, and has run before.
      programs: what it runs, as `jax.stages.Compiled.as_text()` gives it.
    """
    with jax.profiler.trace(directory):
        run()
    return table(read_events(directory), programs)


class Profiled:
    """A jitted function that traces one of its calls and prints where that one's time went.

    Args:
      traced: which call; by the fourth everything is compiled and warm.
      program: of `function`, where it is at hand; on a GPU there will be another.
    """

    def __init__(self, function: Any, directory: Path, traced: int = 4, program: Any = None):
        self._function, self._directory, self._traced = function, directory, traced
        self._program: Any = None if target().platform == "gpu" else program
        self._calls = 0

    def __call__(self, *arguments: Any) -> Any:
        if self._program is None:
            # Else a GPU runs many operations as one command buffer, and a trace shows only that.
            options = {"xla_gpu_enable_command_buffer": ""} if target().platform == "gpu" else None
            self._program = self._function.lower(*arguments).compile(options)
        self._calls += 1
        if self._calls > self._traced:
            return self._program(*arguments)
        if self._calls < self._traced:  # it ends here, or it would still run in the trace
            return jax.block_until_ready(self._program(*arguments))
        jax.block_until_ready(arguments)  # their transfer is not in the trace
        results = []

        def run() -> None:
            results.append(jax.block_until_ready(self._program(*arguments)))

        print(record(self._directory, run, [self._program.as_text()]), flush=True)
        print(f"the trace is in {self._directory}: tensorboard --logdir {self._directory}")
        return results[0]


def read_events(directory: Path) -> list[Event]:
    """The operations of the newest trace below `directory`, of its devices if it has any."""
    newest = max(directory.glob("plugins/profile/*/*.xplane.pb"), key=lambda x: x.stat().st_mtime)
    data = jax.profiler.ProfileData.from_file(str(newest))  # the planes need it alive
    planes = list(data.planes)
    devices = [x for x in planes if x.name.startswith("/device:")]
    return [
        Event(f"{plane.name} {line.name} {number}", operation, event.start_ns, event.end_ns)
        for plane in devices or planes
        for number, line in enumerate(plane.lines)
        for event in line.events
        for key, operation in event.stats
        if key == "hlo_op" and isinstance(operation, str)
    ]


def table(events: Iterable[Event], programs: Iterable[str]) -> str:
    """Milliseconds of every part in every pass, and its share; threads added up."""
    names = {name: op for text in programs for name, op in _operations(text)}
    spent: dict[tuple[str, str], float] = defaultdict(float)
    for event, alone in _own_time(events):
        op = names.get(event.operation, "")
        spent[_part(op), _pass(op)] += alone
    total = sum(spent.values())
    lines = [f"{'part':18}" + "".join(f"{name:>14}" for name in PASSES) + f"{'share':>9}"]
    for part in (*PARTS, OTHER):
        by_pass = [spent[part, name] for name in PASSES]
        if sum(by_pass):
            cells = "".join(f"{x / 1e6:11,.1f} ms" for x in by_pass)
            lines.append(f"{part:18}{cells}{sum(by_pass) / total:9.1%}")
    lines.append(f"{'all':18}{total / 1e6:11,.1f} ms, added up over threads or streams")
    return "\n".join(lines)


def _operations(text: str) -> Iterator[tuple[str, str]]:
    """`(name, op_name)` of every instruction of a compiled program that kept one."""
    instruction = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?metadata={op_name="([^"]*)"')
    for line in text.splitlines():
        if found := instruction.match(line):
            yield found[1], found[2]


def _part(op: str) -> str:
    """The innermost part that an operation's path names."""
    for scope in reversed(re.split(r"[/()]", op)):
        if scope in PARTS:
            return scope
    return OTHER


def _pass(op: str) -> str:
    if "rematted_computation" in op:
        return "recomputed"
    return "backward" if "transpose(" in op else "forward"


def _own_time(events: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    """Each event with its nanoseconds less those of the events inside it (of a loop, say)."""
    lines: dict[str, list[Event]] = {}
    for event in events:
        lines.setdefault(event.line, []).append(event)
    for of_line in lines.values():
        open_: list[list] = []
        for event in sorted(of_line, key=lambda x: (x.start, -x.end)):
            while open_ and open_[-1][0].end <= event.start:
                yield tuple(open_.pop())  # type: ignore[misc]
            if open_:
                open_[-1][1] -= min(event.end, open_[-1][0].end) - event.start
            open_.append([event, event.end - event.start])
        while open_:
            yield tuple(open_.pop())  # type: ignore[misc]
