# SPDX-License-Identifier: Apache-2.0
"""Models for ONNX Runtime, traced from transformers' by PyTorch, in float32 or in int8."""

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bcmb_jax.errors import InputError
from conversion import torch_models
from conversion.mapping import Weights
from conversion.model_card import write_card
from conversion.serving import (
    LONGEST_COMPARED,
    Difference,
    Run,
    compare,
    need_tokenizer,
    our_outputs,
    output_name,
    write_rest,
)
from conversion.verify import our_frequencies

LARGEST_PROTOBUF = 1_800_000_000  # bytes; of a larger model the weights lie in a file beside it


def write_onnx(weights: Weights, folder: Path, title: str, *, int8: bool = False) -> Difference:
    """Write a model for ONNX Runtime and what reads its files, and compare its outputs.

    Attention over a padded row of L tokens is computed with a mask of L², as in transformers.

    Args:
      int8: round weights and activations of matrix products to 8 bits.

    Raises:
      InputError: something that it needs is not installed, or the outputs in float32 differ.
    """
    missing = [x for x in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(x)]
    if missing:
        raise InputError(
            f"--to onnx needs {', '.join(missing)}, not installed: pip install 'bcmb-jax[onnx]'"
        )
    torch_models.import_torch("--to onnx")
    need_tokenizer(weights)
    file, ours = folder / "model.onnx", our_outputs(weights)
    _export_onnx(weights, file)
    difference = compare(weights, ours, _onnx(file))
    quantized = ""
    if int8:
        from onnxruntime.quantization import quantize_dynamic

        exact, file = file, folder / "model_int8.onnx"
        with _quiet():
            # Processors without VNNI (AVX2 alone) add products in 16 bits, which overflow unless
            # weights have 7 bits: then 27 % of our tiny masked LM's words changed, now 8 %.
            quantize_dynamic(exact, file, per_channel=True, reduce_range=True)
        for path in folder.glob("model.onnx*"):
            path.unlink()
        difference = compare(weights, ours, _onnx(file), allowed=np.inf)
        quantized = (
            f"\nMatrix products are in int8. On random tokens, from float32: {difference}.\n"
        )
    write_rest(weights, folder)
    values = {"file": json.dumps(f"{title}/{file.name}"), "quantized": quantized}
    write_card(weights, folder, title, "onnx", output=output_name(weights), **values)
    return difference


def _export_onnx(weights: Weights, file: Path) -> None:
    """Trace transformers' model with our weights and rotary frequencies."""
    import torch

    torch_models.be_quiet()
    model = torch_models.build_modernbert(weights.config, weights.head, weights.params).eval()
    output = output_name(weights)

    class Traced(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[output]

    ids = torch.ones(2, min(LONGEST_COMPARED, weights.config.max_position_embeddings)).long()
    mask = ids.clone()
    mask[1, ids.shape[1] // 2 :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    with our_frequencies(model, weights.config), _quiet():
        program = torch.onnx.export(
            Traced(),
            kwargs=inputs,
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=dict.fromkeys(inputs, sizes),
        )
    size = sum(x.nbytes for x in weights.params.values())
    program.save(str(file), external_data=size > LARGEST_PROTOBUF)


def _onnx(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(tokens: np.ndarray) -> np.ndarray:
        ids = tokens[None].astype(np.int64)
        (out,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        values = np.asarray(out)
        return values[0] if values.ndim == 3 else values

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what exporters say of themselves from the screen."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
