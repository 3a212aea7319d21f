# SPDX-License-Identifier: Apache-2.0
"""From a packing plan to batches: reads tokens by random access, ahead of the training loop."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.data.plan import SPECIAL_TOKENS, EpochPlan, PackingPlan
from bcmb_jax.data.tokenize import SpecialTokens
from bcmb_jax.errors import InputError

STEPS_AHEAD = 3
"""Steps assembled before they are asked for."""

THREADS = 2
"""One to assemble, one for the next epoch's plan. More gained nothing: assembly holds the GIL."""


class Source(Protocol):
    """What the loader reads, from several threads; `shards.Shards` is one."""

    name: str
    lengths: np.ndarray

    def read(self, document: int, start: int, stop: int) -> np.ndarray: ...


class Position(NamedTuple):
    """Where in training a row stands: all that a checkpoint needs to go on with the next one."""

    epoch: int = 0
    row: int = 0
    """Row of the epoch."""
    row_id: int = 0
    """The row's number since the start of training."""


class StepBatch(NamedTuple):
    """This process's rows of a step, and what is true of the whole step on all processes."""

    batch: Batch
    tokens: int
    """Non-padding positions."""
    tokens_by_source: dict[str, int]
    packing_efficiency: float
    next_position: Position


class _Step(NamedTuple):
    """What the plans say about a step: nothing has been read yet."""

    row_id: int
    rows: list[tuple[EpochPlan, int]]
    tokens: np.ndarray
    next_position: Position


class Loader:
    """Yields the steps of training from any position, each process its own rows.

    Args:
        sources: in the order of the plan's lengths.
        plan: how documents become rows.
        special: ids of `[CLS]`, `[SEP]` and padding.
        rows_per_step: over all processes; each takes a contiguous share.

    Raises:
        InputError: `rows_per_step` not a positive multiple of the number of processes, or two
            sources of the same name.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        plan: PackingPlan,
        *,
        special: SpecialTokens,
        rows_per_step: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if rows_per_step < 1 or rows_per_step % process_count:
            raise InputError(
                f"{rows_per_step} rows a step do not divide among {process_count} processes: "
                "make rows_per_step a multiple"
            )
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise InputError(
                f"sources of data need different names, to count their tokens: {', '.join(names)}"
            )
        lengths = [source.lengths for source in sources]
        if len(lengths) != len(plan.lengths) or not all(map(np.array_equal, lengths, plan.lengths)):
            raise ValueError("the plan was made from other lengths than the sources have")
        self.sources = sources
        self.plan = plan
        self.special = special
        self.rows_per_step = rows_per_step
        share = rows_per_step // process_count
        self._share = slice(process_index * share, (process_index + 1) * share)
        self._counting = np.arange(plan.max_document_length, dtype=np.int32)

    def batches(self, epoch: int = 0, row: int = 0, row_id: int = 0) -> Generator[StepBatch]:
        """Steps from a position on, without end: an epoch follows the other, also inside a step.

        Reading starts with the first `next`; closing or dropping the iterator ends its threads.
        An error in one of them is raised by `next`.

        Raises:
            InputError: the epoch has no such row, so the data are not those of the checkpoint.
        """
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="loader")
        ahead: deque[Future[StepBatch]] = deque()
        try:
            for step in self._steps(Position(epoch, row, row_id), pool):
                ahead.append(pool.submit(self._assemble, step))
                if len(ahead) > STEPS_AHEAD:
                    yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _steps(self, position: Position, pool: ThreadPoolExecutor) -> Iterator[_Step]:
        """Walks over the epochs' plans; the next epoch is planned while this one is read."""
        epoch, row, row_id = position
        plan = self.plan.epoch(epoch)
        if row > plan.rows:
            raise InputError(
                f"no row {row} in epoch {epoch}, which has {plan.rows}: these are not the data, "
                "weights or lengths that the position was saved with"
            )
        next_plan = pool.submit(self.plan.epoch, epoch + 1)
        while True:
            rows: list[tuple[EpochPlan, int]] = []
            tokens = np.zeros(len(self.sources), np.int64)
            while len(rows) < self.rows_per_step:
                last = min(plan.rows, row + self.rows_per_step - len(rows))
                rows += [(plan, r) for r in range(row, last)]
                tokens += plan.count_tokens(row, last)
                row = last
                if row == plan.rows:
                    epoch, row = epoch + 1, 0
                    plan = next_plan.result()
                    next_plan = pool.submit(self.plan.epoch, epoch + 1)
            yield _Step(row_id, rows, tokens, Position(epoch, row, row_id + self.rows_per_step))
            row_id += self.rows_per_step

    def _assemble(self, step: _Step) -> StepBatch:
        rows = step.rows[self._share]
        shape = (len(rows), self.plan.row_length)
        tokens = np.full(shape, self.special.pad, np.int32)
        segment_ids, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for i, (plan, row) in enumerate(rows):
            self._fill(plan, row, tokens[i], segment_ids[i], positions[i])
        row_ids = np.arange(step.row_id, step.row_id + self.rows_per_step, dtype=np.int32)
        total = int(step.tokens.sum())
        return StepBatch(
            Batch(tokens, segment_ids, positions, row_ids[self._share]),
            tokens=total,
            tokens_by_source={
                source.name: int(n) for source, n in zip(self.sources, step.tokens, strict=True)
            },
            packing_efficiency=total / (self.rows_per_step * self.plan.row_length),
            next_position=step.next_position,
        )

    def _fill(
        self,
        plan: EpochPlan,
        row: int,
        tokens: np.ndarray,
        segment_ids: np.ndarray,
        positions: np.ndarray,
    ) -> None:
        """Writes the pieces of a row into `[L]` arrays that hold padding."""
        end = 0
        for segment, (source, document, start, length) in enumerate(plan.pieces(row), 1):
            begin, end = end, end + length + SPECIAL_TOKENS
            tokens[begin] = self.special.cls
            tokens[begin + 1 : end - 1] = self.sources[source].read(document, start, start + length)
            tokens[end - 1] = self.special.sep
            segment_ids[begin:end] = segment
            positions[begin:end] = self._counting[: end - begin]
