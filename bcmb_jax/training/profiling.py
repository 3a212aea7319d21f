# SPDX-License-Identifier: Apache-2.0
"""The time that each part of a program takes: a trace for TensorBoard or XProf, and a table.

Parts are the `jax.named_scope`s of the model and the training step; they reach the trace through
the names that the compiled program keeps of its operations.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast

import jax

from bcmb_jax.device import target
from bcmb_jax.private import make_directory

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
Result = TypeVar("Result")
PASSES = ("forward", "recomputed", "backward")


class Event(NamedTuple):
    """One execution of an operation on a thread or stream; times in nanoseconds."""

    line: str
    operation: str
    start: float
    end: float


def record(directory: Path, run: Callable[[], object], programs: Iterable[str]) -> str:
    """Trace one call of `run` into `directory` and return the table of its time.

    Args:
      run: returns when its work is done; compiled and warm.
      programs: the texts of the programs it runs (`jax.stages.Compiled.as_text()`).
    """
    make_directory(directory)
    with jax.profiler.trace(directory):
        run()
    return table(read_events(directory), programs)


class Profiled(Generic[Result]):
    """A jitted function that traces one of its calls and prints where the time of that call went.

    Args:
      function: what `jax.jit` returned.
      traced: the number of the traced call; by the fourth everything is compiled and warm.
    """

    def __init__(self, function: Callable[..., Result], directory: Path, traced: int = 4):
        self._function = cast(jax.stages.Wrapped, function)
        self._directory, self._traced, self._calls = directory, traced, 0
        self._program: jax.stages.Compiled | None = None

    def __call__(self, *arguments: object) -> Result:
        """Call the function, and trace it if this is the call to trace."""
        if self._program is None:
            # A GPU runs many operations as one command buffer, and a trace shows only that.
            whole: dict[str, str | bool] = {"xla_gpu_enable_command_buffer": ""}
            options = whole if target().platform == "gpu" else None
            self._program = self._function.lower(*arguments).compile(options)
        program = self._program
        self._calls += 1
        if self._calls > self._traced:
            return cast(Result, program(*arguments))
        results: list[Result] = []

        def run() -> None:  # waited for, or an earlier call would still run in the trace
            results.append(jax.block_until_ready(program(*arguments)))

        if self._calls < self._traced:
            run()
        else:
            jax.block_until_ready(arguments)  # their transfer is not in the trace
            print(record(self._directory, run, [program.as_text() or ""]), flush=True)
            print(f"the trace is in {self._directory}: tensorboard --logdir {self._directory}")
        return results[0]


def read_events(directory: Path) -> list[Event]:
    """Read the operations of the newest trace below `directory`, those of devices if it has any."""
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
    """Return a table of milliseconds by part and pass, added up over threads or streams."""
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
    """Yield `(name, op_name)` of every instruction of a compiled program that kept its name."""
    instruction = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?metadata={op_name="([^"]*)"')
    for line in text.splitlines():
        if match := instruction.match(line):
            yield match[1], match[2]


def _part(op: str) -> str:
    """Return the innermost part that the path of an operation names."""
    for scope in reversed(re.split(r"[/()]", op)):
        if scope in PARTS:
            return scope
    return OTHER


def _pass(op: str) -> str:
    if "rematted_computation" in op:
        return "recomputed"
    return "backward" if "transpose(" in op else "forward"


def _own_time(events: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    """Yield each event with its nanoseconds less those of the events inside it, as in a loop."""
    lines: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        lines[event.line].append(event)
    for on_line in lines.values():
        running: list[tuple[Event, float]] = []  # the innermost last
        for event in sorted(on_line, key=lambda x: (x.start, -x.end)):
            while running and running[-1][0].end <= event.start:
                yield running.pop()
            if running:
                outer, alone = running[-1]
                running[-1] = outer, alone - (min(event.end, outer.end) - event.start)
            running.append((event, event.end - event.start))
        yield from reversed(running)
