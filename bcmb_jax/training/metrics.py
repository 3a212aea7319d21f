# SPDX-License-Identifier: Apache-2.0
"""The numbers of a run: `metrics.jsonl`, TensorBoard, the terminal. Never a word of a document."""

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
from tensorboardX import SummaryWriter

from bcmb_jax.data.loader import StepBatch
from bcmb_jax.errors import NumericsError
from bcmb_jax.files import write_text
from bcmb_jax.private import make_directory, opener
from bcmb_jax.terminal import Display
from bcmb_jax.training.checkpoint import RunProgress
from bcmb_jax.training.faults import REFUSED_IN_A_ROW
from bcmb_jax.training.validation import Scores

log = logging.getLogger(__name__)

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 peak by device kind (vendor data sheets); elsewhere MFU is not reported."""


class StepMetrics(NamedTuple):
    """Scalar metrics of one optimizer step; the arrays stay on the device."""

    loss: jax.Array
    masked_accuracy: jax.Array
    grad_norm: jax.Array
    clipped_fraction: jax.Array
    skipped_updates: jax.Array
    """Updates refused since the start of training (see `bcmb_jax.training.faults`)."""
    skipped_in_a_row: jax.Array
    """Updates refused since the last one that was made."""


class Reporter:
    """Report a run: write each logged step once the next one runs, so that no device waits for it.

    Args:
      workdir: the run's folder.
      progress: where this process starts.
      max_tokens: the length of the run.
      rows_per_step: rows of a step over all processes.
      skipped_updates: updates refused before this start.
      log_every: steps between two logged ones; the first is always logged.
      unigram: validation loss of the unigram baseline by source, shown beside the model's.
      flops_per_token: model FLOPs of forward and backward pass, for MFU.
    """

    def __init__(
        self,
        workdir: Path,
        progress: RunProgress,
        *,
        max_tokens: int,
        rows_per_step: int,
        skipped_updates: int,
        log_every: int,
        unigram: Mapping[str, float],
        flops_per_token: float,
    ):
        is_first = jax.process_index() == 0
        self._display = Display(silent=not is_first)
        self._writer = MetricsWriter(workdir, progress.step) if is_first else None
        self._max_tokens, self._log_every = max_tokens, log_every
        self._rows_per_step, self._skipped = rows_per_step, skipped_updates
        self._unigram, self._flops_per_token = unigram, flops_per_token
        # The step whose metrics are still being computed: its progress, metrics, rate, efficiency.
        self._dispatched: tuple[RunProgress, StepMetrics, float, float] | None = None
        self._restart_clock(progress)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()
        if self._writer:
            self._writer.close()

    def step(
        self,
        progress: RunProgress,
        metrics: StepMetrics,
        learning_rate: float,
        item: StepBatch,
        seconds_waiting: float,
    ) -> None:
        """Take note of a dispatched step, and write the one noted before it.

        Args:
          progress: after the step.
          item: the step's data.
          seconds_waiting: how long the devices stood still for want of `item`.
        """
        self._seconds_waiting += seconds_waiting
        self.flush()
        self._dispatched = progress, metrics, learning_rate, item.packing_efficiency

    def flush(self) -> None:
        """Wait for the noted step's metrics, and write them if the step is logged or was refused.

        Raises:
          NumericsError: too many updates in a row were refused.
        """
        if self._dispatched is None:
            return
        progress, metrics, learning_rate, efficiency = self._dispatched
        self._dispatched = None
        values: dict[str, float] = {name: x.item() for name, x in metrics._asdict().items()}
        in_a_row = values.pop("skipped_in_a_row")
        refused = values["skipped_updates"] > self._skipped
        self._skipped = int(values["skipped_updates"])
        if refused:
            self._tell_refused(progress, values, int(in_a_row))
        elif progress.step % self._log_every and progress.step != 1:
            return
        seconds = time.perf_counter() - self._since
        speed = (progress.tokens_seen - self._tokens_before) / seconds
        devices = jax.devices()
        self._write(
            progress,
            **values,
            learning_rate=learning_rate,
            tokens_per_second=speed,
            mfu=mfu(speed, self._flops_per_token, devices[0].device_kind, len(devices)),
            packing_efficiency=efficiency,
            seconds_waiting_for_data=self._seconds_waiting,
        )
        self._display.progress(
            progress.tokens_seen / self._max_tokens,
            f"step {progress.step}  loss {values['loss']:.3f}  accuracy "
            f"{values['masked_accuracy']:.3f}  {speed:,.0f} tokens/s",
        )

    def _tell_refused(
        self, progress: RunProgress, values: Mapping[str, float], in_a_row: int
    ) -> None:
        rows = f"{progress.row_id - self._rows_per_step}-{progress.row_id - 1}"
        what = (
            f"step {progress.step}: update refused (loss {values['loss']:.4g}, gradient norm "
            f"{values['grad_norm']:.4g}, rows {rows}); {self._skipped} refused in all"
        )
        if in_a_row < REFUSED_IN_A_ROW:
            self._display.say(what)
            return
        raise NumericsError(
            f"{what}, {in_a_row} in a row: training stops. Parameters and checkpoints are finite. "
            f"See where it begins with --replay {progress.step}; then lower learning_rate, or leave"
            f" the rows out with --config.data.skip_rows={rows}"
        )

    def lacks_evaluation(self) -> bool:
        """Tell whether the metrics hold no evaluation of the step that this process starts from."""
        return bool(self._unigram and self._writer and not self._writer.evaluated)

    def evaluation(self, progress: RunProgress, scores: Mapping[str, Scores]) -> None:
        """Write one evaluation of every source; its time does not count as training's."""
        self.flush()
        values: dict[str, float] = {}
        for source, score in scores.items():
            values[f"eval/{source}/loss"] = score.loss
            values[f"eval/{source}/masked_accuracy"] = score.masked_accuracy
            values[f"eval/{source}/top5_accuracy"] = score.top5_accuracy
            self._display.say(
                f"step {progress.step}: validation {source}: loss {score.loss:.4f} (unigram "
                f"baseline {self._unigram[source]:.4f}), accuracy {score.masked_accuracy:.4f}, "
                f"top 5 {score.top5_accuracy:.4f}"
            )
        self._write(progress, **values)

    def _write(self, progress: RunProgress, **values: float | None) -> None:
        if self._writer:
            self._writer.write(progress.step, {"tokens_seen": progress.tokens_seen, **values})
        self._restart_clock(progress)

    def _restart_clock(self, progress: RunProgress) -> None:
        self._since, self._tokens_before = time.perf_counter(), progress.tokens_seen
        self._seconds_waiting = 0.0


class MetricsWriter:
    """Append JSON lines and TensorBoard scalars.

    A run that was stopped may have written lines of steps after its last checkpoint. They come
    again, identical, when it resumes: a writer that starts at `step` first removes all later ones.
    A line that is damaged is left out too, with a warning; nothing that resumes depends on it.

    Attributes:
      evaluated: whether there is an evaluation of `step`, which a signal may have interrupted.
    """

    def __init__(self, workdir: Path, step: int):
        path = workdir / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept, self.evaluated = [], False
        for number, line in enumerate(lines, start=1):
            at = _step_of(line)
            if at is None:
                log.warning("%s: line %d is damaged and left out", path, number)
            elif at <= step:
                kept.append(line.decode())
                self.evaluated |= at == step and b'"eval/' in line
        write_text(path, "".join(kept))
        self._file = open(path, "a", opener=opener)  # noqa: SIM115 - `close` does
        board = workdir / "tensorboard"
        make_directory(board)
        self._board = SummaryWriter(str(board), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write the metrics of a step by name; TensorBoard has no place for None.

        A number that is not finite becomes None too: it is no JSON.
        """
        values = {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if value is not None:
                tag = name if name.startswith("eval/") else f"train/{name}"
                self._board.add_scalar(tag, value, step)

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        self._board.close()


def _step_of(line: bytes) -> int | None:
    """Return the step that a line of metrics is of, or None where it is damaged or cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        step = json.loads(line.decode())["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def mfu(tokens_per_second: float, flops_per_token: float, kind: str, devices: int) -> float | None:
    """Return the share of the devices' bf16 peak that the model's FLOPs use, None if unknown.

    Args:
      kind: the name that the devices give themselves, such as "NVIDIA H100 80GB HBM3".
      devices: how many there are.
    """
    peak = next((peak for name, peak in PEAK_FLOPS.items() if name in kind), None)
    return tokens_per_second * flops_per_token / (peak * devices) if peak else None
