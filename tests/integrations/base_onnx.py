# SPDX-License-Identifier: Apache-2.0
"""Export a model of base size to ONNX: how long it takes, in how much memory, how near it comes.

python tests/integrations/base_onnx.py TOKENIZER FOLDER     (a ModernBERT tokenizer; a new folder)

Weights are random, with the scale of trained ones; time and memory do not depend on them.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from bcmb_jax.agreements import Agreement
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from conversion.export import write_huggingface
from conversion.mapping import Weights, table

BASE = ModelConfig()  # whose defaults are those of ModernBERT-base


def write_model(tokenizer: Path, folder: Path) -> None:
    """Write a masked LM of base size."""
    rng = np.random.default_rng(0)
    params = {}
    for row in table(BASE, Head()):
        draw = rng.standard_normal(row.shape, np.float32)
        is_norm = row.name.endswith("norm.weight")
        params[row.name] = 1 + 0.1 * draw if is_norm else draw * np.float32(0.04)
    ids: dict[str, int | None] = {"cls": 50281, "sep": 50282, "pad": 50283, "mask": 50284}
    known = (Agreement("random weights", "none needed"),)
    folder.mkdir(parents=True)
    write_huggingface(Weights(BASE, params, ids, tokenizer, "random", agreements=known), folder)


def run(arguments: list[str]) -> tuple[int, float, float]:
    """Return a command's status, its seconds, and the most memory it held (GB)."""
    begun = time.monotonic()
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.monotonic() - begun
    return os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024 / 1e9


def main(tokenizer: Path, folder: Path) -> None:
    """Export in float32 and int8, and print what each took."""
    write_model(tokenizer, folder / "base")
    for name, options in (("onnx", []), ("int8", ["--dtype", "int8"])):
        output = folder / f"base-{name}"
        command = ["-m", "conversion.convert", "--input", str(folder / "base")]
        status, seconds, gigabytes = run(
            [*command, "--to", "onnx", "--output", str(output), *options]
        )
        if status:
            raise SystemExit(status)
        size = sum(file.stat().st_size for file in output.glob("*.onnx*")) / 1e9
        print(f"{name}: {size:.2f} GB, {seconds:.0f} s, {gigabytes:.1f} GB of memory", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
