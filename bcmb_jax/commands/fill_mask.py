# SPDX-License-Identifier: Apache-2.0
"""Fill masks in texts with a masked language model."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import conversion
from bcmb_jax.data.synthetic import DEMO_CLOZES
from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError, reason
from bcmb_jax.programs import keep_programs
from bcmb_jax.terminal import say_next


def main(options: argparse.Namespace) -> None:
    """Print what the model predicts, or how well."""
    keep_programs()
    model = conversion.from_pretrained(
        options.model, online=options.online, hub_token_file=options.hub_token_file
    )
    if model.tokenizer_directory is None:
        raise InputError(f"{options.model} has no tokenizer.json; put its tokenizer's files there")
    tokenizer = load_tokenizer(str(model.tokenizer_directory))
    if not 1 <= options.top <= tokenizer.vocab_size:
        raise InputError(f"--top {options.top}: choose 1 to {tokenizer.vocab_size:,} predictions")
    if options.probes:
        probes, answers = read_probes(options.probes, tokenizer)
        rows = encode_clozes(tokenizer, probes)
        print(summary(ranks(model, tokenizer, rows, answers), options.top))
        return
    texts = options.text or DEMO_CLOZES
    for text, found in zip(texts, model.fill_mask(texts, options.top), strict=True):
        print(f"\n{text}")
        for words in found if isinstance(found[0], list) else [found]:
            shown = ((word.strip() or repr(word), p) for word, p in words)  # a line end as '\n'
            print("   " + "   ".join(f"{word} {100 * p:.1f} %" for word, p in shown))
    say_next("bcmb evaluate --list-tasks shows what the model can be scored on")


def encode_clozes(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Encode each text with `[CLS]` and `[SEP]`, as transformers does.

    Raises:
      InputError: a text without a mask.
    """
    rows = tokenizer.encode_marked(texts)
    for number, row in enumerate(rows, 1):
        if tokenizer.special.mask not in row:
            mask = tokenizer.token(tokenizer.special.mask)
            raise InputError(f"text {number} of {len(rows)} has no {mask}; write one in it")
    return rows


def read_probes(file: Path, tokenizer: Tokenizer) -> tuple[list[str], list[list[int]]]:
    """Read texts, and the ids that are right for each: the word after a space, and without.

    Raises:
      InputError: there is no such file, or a line is not a text with one mask, a tab and a word
        that is one token.
    """
    try:
        # Only line feeds end a line: a text may hold U+2028 or a form feed.
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {reason(error)}") from error
    mask = tokenizer.token(tokenizer.special.mask)
    texts, answers = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, _, word = line.rpartition("\t")
        if text.count(mask) != 1 or not word.strip():
            raise InputError(f"{file}:{number} is not a text with one {mask}, a tab and a word")
        forms = tokenizer.encode_batch([f" {word.strip()}", word.strip()])
        whole = [int(ids[0]) for ids in forms if len(ids) == 1]
        if not whole:
            raise InputError(f"{file}:{number}: the word is {len(forms[0])} tokens, and must be 1")
        texts.append(text)
        answers.append(whole)
    if not texts:
        raise InputError(f"{file} holds no probe")
    return texts, answers


def ranks(
    model: conversion.PretrainedModel,
    tokenizer: Tokenizer,
    rows: list[np.ndarray],
    answers: list[list[int]],
) -> np.ndarray:
    """Return `[probes]`: the rank of the best right answer in the vocabulary, from 1 on."""
    length = max(map(len, rows))
    tokens = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
    real = np.stack([np.arange(length) < len(row) for row in rows])
    places = np.nonzero((tokens == tokenizer.special.mask) & real)
    logits = np.asarray(model(tokens, real)[places])
    best = [of_row[ids].max() for of_row, ids in zip(logits, answers, strict=True)]
    return np.sum(logits > np.array(best)[:, None], axis=1) + 1


def summary(ranks: np.ndarray, top: int) -> str:
    """Return a line with the share of right answers and the mean reciprocal rank."""
    return (
        f"{len(ranks):,} probes: right {np.mean(ranks == 1):.1%}, among the first {top} "
        f"{np.mean(ranks <= top):.1%}, mean reciprocal rank {np.mean(1 / ranks):.3f}"
    )
