# SPDX-License-Identifier: Apache-2.0
"""Convert a model between formats, and prove the copy equal."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bcmb_jax import agreements
from bcmb_jax.device import give_back_freed_memory
from bcmb_jax.errors import InputError
from conversion import export, onnx_files, serving, torch_models
from conversion.mapping import Weights, check_finite
from conversion.verify import (
    LogitDifference,
    TensorDifference,
    compare,
    compare_with_input,
    compare_with_transformers,
)
from conversion.weights import read

WRITERS = {
    "huggingface": export.write_huggingface,
    "orbax": export.write_orbax,
    "composer": export.write_composer,
}
SERVING: dict[str, serving.Writer] = {
    "sentence-transformers": serving.write_sentence_transformers,
    "onnx": onnx_files.write_onnx,
    "stablehlo": serving.write_stablehlo,
}
BESIDE_WEIGHTS = 50_000_000  # bytes: tokenizer, JSON, what file systems round up


class Verdict(NamedTuple):
    """Results of verification; `logits` is None where torch is not installed."""

    tensors: TensorDifference
    logits: LogitDifference | None


def convert(
    source: str,
    to: str,
    output: Path,
    *,
    overwrite: bool = False,
    model_config: Path | None = None,
    dtype: str | None = None,
    license: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Convert and verify; `output` appears only if that succeeds.

    Args:
      model_config: sizes for a `.pt` that does not hold them.
      dtype: of the tensors in a Hugging Face folder; None keeps the source's.
      license: the agreement of training data for which none is on record.
      say: called with a line for each stage.

    Raises:
      InputError: something to correct.
      NumericsError: a tensor or a moment holds NaN or infinity.
    """
    _check_output(source, output, overwrite=overwrite)

    def load() -> Weights:
        weights = read(source, model_config=model_config)
        weights = weights._replace(agreements=agreements.state(weights.agreements, license))
        if to == "huggingface":  # which has no place for them
            weights = weights._replace(opt_state=None)
        if to == "composer":  # which trains in float32
            weights = weights._replace(dtype="float32")
        return weights if dtype is None else in_dtype(weights, dtype)

    def stage(text: str) -> None:
        give_back_freed_memory()
        say(text)

    with export.new_model_folder(output, overwrite=overwrite) as folder:
        stage(f"reading {source}")
        weights = load()
        size = sum(x.nbytes for x in weights.params.values())
        size *= 1 if weights.opt_state is None else 3
        gigabytes = size / 1e9
        export.check_free_space(output, size + BESIDE_WEIGHTS)
        stage(f"writing {gigabytes:.2f} GB to {output}")
        WRITERS[to](weights, folder, output.name)
        say(agreements.describe(weights.agreements))
        del weights  # read again below: for the proof two whole models are held, and no more
        stage(f"reading {gigabytes:.2f} GB back, and the original again")
        if to == "orbax":  # reading Orbax takes room of its own, so it comes before a mapped .pt
            written = read(folder)
            give_back_freed_memory()
            original = load()
        else:
            original = load()
            give_back_freed_memory()
            written = read(folder)
        stage("comparing every bit")
        tensors = compare(original, written)
        # Proven equal: only parameters are needed, and of the one that is not a mapped file.
        source_folder = original.folder
        as_folder = folder if to == "huggingface" else source_folder
        kept = (original if to == "composer" else written)._replace(opt_state=None)
        del original, written
        if not torch_models.is_installed():
            return Verdict(tensors, None)
        if to == "huggingface" and source_folder is not None:
            stage("comparing with what transformers reads from the original")
            compare_with_input(kept, source_folder)
        return Verdict(tensors, compare_with_transformers(kept, as_folder, stage))


def convert_for_serving(
    source: str,
    write: serving.Writer,
    output: Path,
    *,
    overwrite: bool = False,
    model_config: Path | None = None,
    license: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> serving.Difference | None:
    """Write a model for another program, and compare what that program makes of it.

    Args:
      write: one of `SERVING`.
      overwrite, model_config, license, say: as for `convert`.

    Returns:
      How far the program's outputs are from ours; None if it is not installed.

    Raises:
      InputError: something to correct, or the outputs differ.
    """
    _check_output(source, output, overwrite=overwrite)
    with export.new_model_folder(output, overwrite=overwrite) as folder:
        say(f"reading {source}")
        weights = read(source, model_config=model_config)._replace(opt_state=None)
        weights = weights._replace(agreements=agreements.state(weights.agreements, license))
        size = sum(x.nbytes for x in weights.params.values())
        export.check_free_space(output, 2 * size + BESIDE_WEIGHTS)
        say(f"writing {size / 1e9:.2f} GB to {output} and comparing its outputs with ours")
        difference = write(weights, folder, output.name)
        say(agreements.describe(weights.agreements))
    return difference


def _check_output(source: str, output: Path, *, overwrite: bool) -> None:
    here, there = (Path(p).expanduser().absolute() for p in (source, output))
    if here.exists() and (here.is_relative_to(there) or there.is_relative_to(here / "checkpoints")):
        raise InputError(f"--output {output} holds the input {source}; give another folder")
    export.refuse_to_lose(output, overwrite=overwrite)
    if output.suffix in (".pt", ".onnx"):
        raise InputError(f"--output {output}: give a folder; the file is written into it")


def in_dtype(weights: Weights, dtype: str) -> Weights:
    """Round weights to `dtype`, in which they are then stored.

    Raises:
      NumericsError: a number is too large for it.
    """
    with np.errstate(over="ignore"):  # refused below, with the tensor's name
        params = {name: x.astype(dtype).astype(np.float32) for name, x in weights.params.items()}
    check_finite(params, f"{weights.origin} as {dtype}")
    origin = f"{weights.origin}, rounded to {dtype}"
    return weights._replace(params=params, dtype=dtype, origin=origin)


if __name__ == "__main__":
    from bcmb_jax.commands import start  # the one import that points upward

    start("convert")
