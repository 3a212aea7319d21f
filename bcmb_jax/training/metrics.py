# SPDX-License-Identifier: Apache-2.0
"""Where a run's numbers go: `metrics.jsonl`, TensorBoard, the terminal. Never a word of text."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 peak by device kind (vendor data sheets); elsewhere MFU is not reported."""


class MetricsWriter:
    """Appends JSON lines and TensorBoard scalars; on resume forgets what lies after `step`.

    Lines of steps after the restored one were written by a run that was stopped before it could
    save them; they come again, identical.
    """

    def __init__(self, workdir: Path, step: int):
        path = workdir / "metrics.jsonl"
        kept = [x for x in _whole_lines(path) if json.loads(x)["step"] <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept))
        os.replace(partial, path)
        self._file = path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                tag = name if name.startswith("eval/") else f"train/{name}"
                self._board.add_scalar(tag, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [x for x in path.read_text().splitlines(keepends=True) if x.endswith("\n")]


def mfu(tokens_per_second: float, flops_per_token: float, kind: str, devices: int) -> float | None:
    """Share of the devices' bf16 peak that the model's FLOPs use; None if it is unknown."""
    peak = next((peak for name, peak in PEAK_FLOPS.items() if name in kind), None)
    return tokens_per_second * flops_per_token / (peak * devices) if peak else None
