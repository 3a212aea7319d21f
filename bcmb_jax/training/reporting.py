# SPDX-License-Identifier: Apache-2.0
"""What a run says while it trains: metrics files, the display, and the baseline beside the loss."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bcmb_jax.data.loader import StepBatch
from bcmb_jax.terminal import Display
from bcmb_jax.training.checkpoint import Progress
from bcmb_jax.training.metrics import MetricsWriter, mfu
from bcmb_jax.training.validation import Scores


class _Pending(NamedTuple):
    """A step whose numbers are still being computed on the device."""

    progress: Progress
    metrics: Any
    learning_rate: float
    packing_efficiency: float
    logged: bool


class Reporter:
    """Writes each logged step once the next one runs, so that the device never waits for it.

    Args:
      unigram: source → validation loss of the unigram baseline, shown beside the model's.
      flops_per_token: of forward and backward, for MFU.
    """

    def __init__(
        self,
        workdir: Path,
        progress: Progress,
        *,
        max_tokens: int,
        log_every: int,
        unigram: Mapping[str, float],
        flops_per_token: float,
    ):
        self._display = Display(silent=not _is_first())
        self._writer = MetricsWriter(workdir, progress.step) if _is_first() else None
        self._max_tokens, self._log_every = max_tokens, log_every
        self._unigram, self._flops_per_token = unigram, flops_per_token
        self._pending: _Pending | None = None
        self._waited, self._tokens = 0.0, progress.tokens_seen
        self._since = time.perf_counter()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    def step(
        self, progress: Progress, metrics: Any, rate: float, item: StepBatch, waited: float
    ) -> None:
        """Take note of a dispatched step, and write the one noted before it."""
        self._waited += waited
        self.flush()
        logged = progress.step % self._log_every == 0 or progress.step == 1
        self._pending = _Pending(progress, metrics, rate, item.packing_efficiency, logged)

    def flush(self) -> None:
        """Wait for the noted step's numbers, check them, and write them if it is to be logged.

        Raises:
          FloatingPointError: the loss is not finite, logged or not.
        """
        if self._pending is None:
            return
        progress, metrics, rate, efficiency, logged = self._pending
        self._pending = None
        values = {name: float(x) for name, x in metrics._asdict().items()}
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss of step {progress.step} is {values['loss']} (gradient norm "
                f"{values['grad_norm']}); the last checkpoint is from before it: lower "
                "learning_rate, or look at that step's rows, from row_id "
                f"{progress.row_id} backwards"
            )
        if not logged:
            return
        now = time.perf_counter()
        speed = (progress.tokens_seen - self._tokens) / (now - self._since)
        devices = jax.devices()
        self._write(
            progress,
            {
                "tokens_seen": progress.tokens_seen,
                **values,
                "learning_rate": rate,
                "tokens_per_second": speed,
                "mfu": mfu(speed, self._flops_per_token, devices[0].device_kind, len(devices)),
                "packing_efficiency": efficiency,
                "seconds_waiting_for_data": self._waited,
            },
        )
        left = max(0, self._max_tokens - progress.tokens_seen) / speed
        self._display.progress(
            progress.tokens_seen / self._max_tokens,
            f"step {progress.step}  loss {values['loss']:.3f}  accuracy "
            f"{values['masked_accuracy']:.3f}  {speed:,.0f} tokens/s  {_duration(left)} left",
        )
        self._since, self._tokens, self._waited = now, progress.tokens_seen, 0.0

    def evaluation(self, progress: Progress, scores: Mapping[str, Scores]) -> None:
        """Write one evaluation of every source."""
        self.flush()
        values: dict[str, Any] = {"tokens_seen": progress.tokens_seen}
        for source, score in scores.items():
            values[f"eval/{source}/loss"] = score.loss
            values[f"eval/{source}/masked_accuracy"] = score.masked_accuracy
            values[f"eval/{source}/top5_accuracy"] = score.top5_accuracy
            self._display.say(
                f"step {progress.step}: validation {source}: loss {score.loss:.4f} (unigram "
                f"baseline {self._unigram[source]:.4f}), accuracy {score.masked_accuracy:.4f}, "
                f"top 5 {score.top5_accuracy:.4f}"
            )
        self._write(progress, values)
        self._since, self._tokens, self._waited = time.perf_counter(), progress.tokens_seen, 0.0

    def _write(self, progress: Progress, values: Mapping[str, Any]) -> None:
        if self._writer:
            self._writer.write(progress.step, values)


def _is_first() -> bool:
    return jax.process_index() == 0


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
