# SPDX-License-Identifier: Apache-2.0
"""Fill masks: python scripts/fill_mask.py --model DIR_OR_ID [--text "... [MASK] ..."] [--top 5]

Without --text, a few sentences for a model of the demo's synthetic notes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import tokenizers

import conversion
from bcmb_jax.data.synthetic import DEMO_CLOZES
from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError, run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder, workdir or hub id")
    parser.add_argument("--text", action="append", help="may be given several times")
    parser.add_argument("--top", type=int, default=5, help="predictions for each mask")
    options = parser.parse_args()
    model = conversion.from_pretrained(options.model)
    if model.tokenizer_directory is None:
        raise InputError(f"{options.model} has no tokenizer.json; put its tokenizer's files there")
    tokenizer = load_tokenizer(str(model.tokenizer_directory))
    texts = options.text or DEMO_CLOZES
    rows = encode_clozes(model.tokenizer_directory, tokenizer, texts)
    for text, predictions in zip(texts, fill(model, tokenizer, rows, options.top), strict=True):
        print(f"\n{text}")
        for place in predictions:
            print("   " + "   ".join(f"{word} {100 * p:.1f} %" for word, p in place))


def encode_clozes(directory: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text with `[CLS]` and `[SEP]`, as transformers gives them.

    Raises:
      InputError: a text without a mask.
    """
    # Our tokenizer reads "[MASK]" as text, since notes are never to contain special tokens.
    backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    backend.no_truncation()
    cls, sep = tokenizer.special.cls, tokenizer.special.sep
    rows = [[cls, *backend.encode(text, add_special_tokens=False).ids, sep] for text in texts]
    for number, row in enumerate(rows, 1):
        if tokenizer.special.mask not in row:
            mask = tokenizer.token(tokenizer.special.mask)
            raise InputError(f"text {number} of {len(rows)} has no {mask}; write one in it")
    return [np.array(row, np.int32) for row in rows]


def fill(
    model: conversion.PretrainedModel, tokenizer: Tokenizer, rows: list[np.ndarray], top: int
) -> list[list[list[tuple[str, float]]]]:
    """For each row, for each mask in it, the `top` most probable `(word, probability)`."""
    length = max(map(len, rows))
    tokens = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
    real = np.stack([np.arange(length) < len(row) for row in rows])
    row_of, place_of = np.nonzero((tokens == tokenizer.special.mask) & real)
    logits = model(tokens, real)[row_of, place_of]
    probabilities, best = jax.lax.top_k(jax.nn.softmax(logits), top)
    filled: list[list[list[tuple[str, float]]]] = [[] for _ in rows]
    for row, ids, ps in zip(row_of, np.asarray(best), np.asarray(probabilities), strict=True):
        words = [tokenizer.decode([token]) for token in ids]
        words = [word.strip() or repr(word) for word in words]  # a line end as '\n'
        filled[row].append(list(zip(words, ps.tolist(), strict=True)))
    return filled


if __name__ == "__main__":
    sys.exit(run(main))
