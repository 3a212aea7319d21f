# SPDX-License-Identifier: Apache-2.0
"""Time candidates in turns on a machine that may not be quiet, and measure its speed limit."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bcmb_jax.batch import Batch
from bcmb_jax.device import compiler_options, compute_dtype
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.ops.linear import linear
from bcmb_jax.terminal import Display
from bcmb_jax.training.profiling import Profiled

OURS = "bcmb_jax"
Times = list[float]
State = TypeVar("State")
Output = TypeVar("Output")

SHAPES = ((2048, 768, 2304), (4096, 1152, 768), (2048, 2048, 2048))  # rows, inputs, outputs
ON_ACCELERATORS = ((16_384, 4096, 4096), (8192, 8192, 8192))


class Setting(NamedTuple):
    """Options that all cases of one benchmark share.

    Attributes:
      size: the name of `config`.
      precision: "bf16" or "fp32", for JAX and PyTorch.
      implementation: the implementation of our attention.
      candidates: PyTorch's candidates for the baseline; none: no comparison.
      rounds, repeats: as in `time_interleaved`.
    """

    size: str
    config: ModelConfig
    precision: str
    implementation: str
    candidates: Sequence[str]
    rounds: int
    repeats: int

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of matrix products."""
        return compute_dtype(self.precision)

    def metadata(self) -> dict[str, str]:
        """Return what the report records of these options."""
        return {"size": self.size, "precision": self.precision, "attention": self.implementation}

    def time(
        self, candidates: Mapping[str, Callable[[], object]]
    ) -> tuple[dict[str, Times], float]:
        """Return the times of candidates in turns, and the ceiling in FLOP/s.

        The ceiling is the faster of one before and one after them: a machine that others use too is
        only at times as fast as it can be.
        """
        before = matmul_ceiling(self.dtype)
        times = time_interleaved(candidates, self.rounds, self.repeats)
        return times, max(before, matmul_ceiling(self.dtype))


def time_interleaved(
    candidates: Mapping[str, Callable[[], object]], rounds: int, repeats: int
) -> dict[str, Times]:
    """Return the seconds of every timed call, by candidate.

    Candidates take turns: one call that is not counted (caches, threads and memory come back to
    this candidate), then `repeats` counted ones; `rounds` times. A drift of the machine's speed
    then affects all candidates alike.

    Args:
      candidates: functions that return only when their work is done.
      repeats: 0 for calls of minutes: one call a turn, and that one counts.
    """
    times: dict[str, Times] = {name: [] for name in candidates}
    display = Display()
    for turn in range(rounds):
        for number, (name, run) in enumerate(candidates.items()):
            done = (turn + number / len(candidates)) / rounds
            display.progress(done, f"round {turn + 1} of {rounds}: {name}")
            if repeats:
                run()
            for _ in range(repeats or 1):
                times[name].append(_seconds(run))
    display.close()
    return times


def matmul_ceiling(dtype: jnp.dtype) -> float:
    """Return the FLOP/s of the fastest of a few large products, computed as the model's are."""
    shapes = SHAPES if jax.default_backend() == "cpu" else ON_ACCELERATORS
    return max(_flops_per_second(shape, dtype) for shape in shapes)


def _flops_per_second(shape: tuple[int, int, int], dtype: jnp.dtype) -> float:
    rows, inputs, outputs = shape
    # Made on the device: a hundred million numbers take a host longer than a GPU's whole run.
    x = jax.random.normal(jax.random.key(0), (rows, inputs), dtype)
    weight = jax.random.normal(jax.random.key(1), (outputs, inputs))
    product = jax.jit(lambda x, weight: linear("md,nd->mn", x, weight, dtype, out_dtype=dtype))

    def run() -> None:
        product(x, weight).block_until_ready()

    run()
    return 2 * rows * inputs * outputs / min(_seconds(run) for _ in range(10))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Runner(Generic[State, Output]):
    """A function over a few batches, compiled for each of their shapes; a call runs every batch.

    Args:
      step: returns the next state, in the memory of the one that it takes, and an output.
      state, batches: on the devices of `mesh`.
    """

    def __init__(
        self,
        step: Callable[[State, Batch], tuple[State, Output]],
        state: State,
        batches: Sequence[Batch],
        mesh: Mesh,
    ):
        self.step, self.state, self.batches, self.mesh = step, state, batches, mesh
        start = time.perf_counter()
        options = compiler_options(mesh)
        self._jitted = jax.jit(step, donate_argnums=0, compiler_options=options)
        shapes = {batch.tokens.shape: batch for batch in batches}
        with jax.set_mesh(mesh):
            self._programs = {
                shape: self._jitted.lower(state, batch).compile() for shape, batch in shapes.items()
            }
        self.seconds_to_compile = time.perf_counter() - start

    def __call__(self) -> list[Output]:
        """Return the output of each batch when all are computed."""
        outputs = []
        for batch in self.batches:
            self.state, output = self._programs[batch.tokens.shape](self.state, batch)
            outputs.append(output)
        jax.block_until_ready((self.state, outputs))
        return outputs

    def profile(self, directory: Path) -> None:
        """Trace the first batch once more, and print where its time goes."""
        step = Profiled(self._jitted, directory, traced=2)
        with jax.set_mesh(self.mesh):
            for _ in range(2):
                self.state, _ = step(self.state, self.batches[0])

    def memory(self) -> dict[str, int]:
        """Return the bytes of the state, and those that the largest program needs beside it."""
        used = [x for program in self._programs.values() if (x := program.memory_analysis())]
        return {
            "state_bytes": used[0].alias_size_in_bytes,
            "temporary_bytes": max(x.temp_size_in_bytes for x in used),
        }
