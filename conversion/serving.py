# SPDX-License-Identifier: Apache-2.0
"""Folders for programs that run a model without this package, each compared with ours.

Here are sentence-transformers and StableHLO, which keep the weights to the bit; ONNX has a module
of its own.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.errors import InputError
from bcmb_jax.files import write_json
from conversion import torch_models
from conversion.export import write_huggingface, write_tokenizer
from conversion.huggingface import WEIGHTS, write_config
from conversion.mapping import Weights
from conversion.model_card import write_card, write_manifest
from conversion.pretrained import PretrainedModel, compute
from conversion.verify import compare_tensors
from conversion.weights import read, with_head

LARGEST_DIFFERENCE = 1e-4
"""Allowed between two programs' float32 outputs, as a share of the largest (at least of 1)."""
LENGTHS = (128, 512, 2048, 8192)
"""Row lengths that StableHLO programs are made for, as far as the model reads."""
LONGEST_COMPARED = 640  # tokens: beyond a local layer's window, within any machine's memory

Run = Callable[[np.ndarray], np.ndarray]
"""A document's tokens `[L]` → its outputs, `[L, outputs]` or `[1, outputs]`."""


class Difference(NamedTuple):
    """How far the outputs of what was written are from ours, over all positions compared.

    Attributes:
      largest: difference of any output.
      scale: the largest output itself.
      same: share of positions at which the same output is the largest.
      cosine: the smallest similarity of two vectors of outputs.
    """

    largest: float
    scale: float
    same: float
    cosine: float

    def __str__(self) -> str:
        return (
            f"largest difference of outputs {self.largest:.2e} (largest output {self.scale:.1f}), "
            f"the same output is the largest at {self.same:.2%} of positions, smallest cosine "
            f"{self.cosine:.6f}"
        )


Writer = Callable[..., Difference | None]
"""Writes weights into a folder under a title: `(weights, folder, title)`, and options by name."""


def write_sentence_transformers(
    weights: Weights, folder: Path, title: str, pooling: Literal["mean", "cls"] = "mean"
) -> Difference | None:
    """Write an encoder that sentence-transformers 5 and 6 load, and compare its vectors.

    Returns:
      The difference, or None where sentence-transformers or PyTorch is not installed.

    Raises:
      InputError: the model has no tokenizer, or its vectors differ from ours.
    """
    weights = with_head(weights, "encoder", None)
    need_tokenizer(weights)
    write_huggingface(weights, folder, title)
    width = weights.config.hidden_size
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    chosen = {"mean": "mean_tokens", "cls": "cls_token"}[pooling]
    (folder / "1_Pooling").mkdir()
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            **{f"pooling_mode_{mode}": mode == chosen for mode in modes},
        },
    )
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    longest = weights.config.max_position_embeddings
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False}
    )
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    what = {"mean": "mean", "cls": "first"}[pooling]
    write_card(weights, folder, title, "sentence_transformers", pooling=what)
    compare_tensors(weights.params, read(folder).params)
    if not all(map(importlib.util.find_spec, ("torch", "sentence_transformers"))):
        return None
    import sentence_transformers
    import torch

    torch_models.be_quiet()
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    ours = our_outputs(weights)

    def vector(tokens: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(tokens[None].astype(np.int64))
        with torch.no_grad():
            batch = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        return np.asarray(batch["sentence_embedding"])

    def pooled(tokens: np.ndarray) -> np.ndarray:
        hidden = ours(tokens)
        return hidden[:1] if pooling == "cls" else hidden.mean(0, keepdims=True)

    return compare(weights, pooled, vector)


def write_stablehlo(weights: Weights, folder: Path, title: str) -> Difference:
    """Write programs that `jax.export` loads on any device, and compare their outputs.

    There is one a row length, for any number of rows; the weights lie beside them, to the bit.

    Raises:
      InputError: the outputs differ.
    """
    need_tokenizer(weights)
    longest = weights.config.max_position_embeddings
    lengths = sorted({min(length, longest) for length in LENGTHS})

    def rows(params: dict[str, jax.Array], tokens: jax.Array, segment_ids: jax.Array) -> jax.Array:
        def row(tokens: jax.Array, segment_ids: jax.Array) -> jax.Array:
            batch = tokens[None], segment_ids[None], segment_positions(segment_ids[None])
            out = compute(weights.config, weights.head, jnp.dtype("float32"), 1, params, *batch)
            documents: jax.Array = out[0]
            return documents[0] if weights.head.kind == "sequence_classification" else documents

        # A number of rows that is not known yet would not divide into the blocks of our loops.
        return jax.vmap(row)(tokens, segment_ids)

    shapes = {n: jax.ShapeDtypeStruct(x.shape, jnp.float32) for n, x in weights.params.items()}
    for length in lengths:
        ids = jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"rows, {length}"), jnp.int32)
        program = jax.export.export(jax.jit(rows), platforms=("cpu", "cuda", "tpu"))
        content = program(shapes, ids, ids).serialize()
        (folder / f"model-{length}.stablehlo").write_bytes(content)
    save_file(weights.params, folder / WEIGHTS)
    write_rest(weights, folder)
    values = {"lengths": ", ".join(map(str, lengths)), "shortest": lengths[0]}
    write_card(weights, folder, title, "stablehlo", output=output_name(weights), **values)
    return compare(weights, our_outputs(weights), _stablehlo(folder, lengths))


def _stablehlo(folder: Path, lengths: list[int]) -> Run:
    programs = {
        length: jax.export.deserialize(
            bytearray((folder / f"model-{length}.stablehlo").read_bytes())
        )
        for length in lengths
    }
    params = load_file(folder / WEIGHTS)

    def run(tokens: np.ndarray) -> np.ndarray:
        length = next(x for x in lengths if x >= len(tokens))
        row = np.zeros((2, 1, length), np.int32)
        row[0, 0, : len(tokens)], row[1, 0, : len(tokens)] = tokens, 1
        out = np.asarray(programs[length].call(params, *row))
        return out if out.ndim == 2 else out[0, : len(tokens)]

    return run


def our_outputs(weights: Weights) -> Run:
    """Return a function that computes our float32 outputs of a document."""
    model = PretrainedModel(weights, jnp.dtype("float32"))
    length = min(LONGEST_COMPARED, weights.config.max_position_embeddings)

    def run(tokens: np.ndarray) -> np.ndarray:
        row, used = np.zeros((1, length), np.int32), np.arange(length)[None] < len(tokens)
        row[0, : len(tokens)] = tokens
        out: np.ndarray = np.asarray(model(row, used.astype(np.int32)))[0, : len(tokens)]
        return out

    return run


def compare(
    weights: Weights, ours: Run, written: Run, allowed: float = LARGEST_DIFFERENCE
) -> Difference:
    """Compare on random documents of one token, few, and more than a window holds.

    Raises:
      InputError: an output differs by more than `allowed` of the largest.
    """
    rng = np.random.default_rng(0)
    longest = min(LONGEST_COMPARED, weights.config.max_position_embeddings)
    documents = [
        rng.integers(0, weights.config.vocab_size, length, dtype=np.int32)
        for length in (1, 5, longest // 3, longest)
    ]
    x, y = (np.concatenate([run(tokens) for tokens in documents]) for run in (ours, written))
    scale = max(1.0, float(np.abs(x).max()))
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    result = Difference(
        float(np.abs(x - y).max()),
        scale,
        float((x.argmax(-1) == y.argmax(-1)).mean()),
        float(((x * y).sum(-1) / norms).min()),
    )
    if not result.largest <= allowed * scale:  # so that NaN fails too
        raise InputError(
            f"verification failed: {result}; at most {allowed * scale:.2e} is rounding"
        )
    return result


def write_rest(weights: Weights, folder: Path) -> None:
    """Write config, tokenizer and manifest beside a program."""
    assert weights.tokenizer is not None
    token_ids = write_tokenizer(weights.tokenizer, folder, weights.config)
    write_config(weights, token_ids, folder)
    write_manifest(weights, folder)


def need_tokenizer(weights: Weights) -> None:
    """Raise `InputError` where weights come without a tokenizer."""
    if weights.tokenizer is None:
        raise InputError(
            f"{weights.origin} has no tokenizer.json, without which nobody can put text into the "
            "model; put the tokenizer that it was trained with into its folder"
        )


def output_name(weights: Weights) -> str:
    """Return the name that transformers has for the outputs, and servers expect."""
    return "last_hidden_state" if weights.head.kind == "encoder" else "logits"
