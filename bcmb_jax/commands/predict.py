# SPDX-License-Identifier: Apache-2.0
"""Predict labels or entities of many texts."""

import argparse
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import jax

import conversion
from bcmb_jax.errors import InputError
from bcmb_jax.inference import predictions
from bcmb_jax.inference.journal import journal
from bcmb_jax.inference.predictions import TEXTUAL, Form, write_brat
from bcmb_jax.inference.rows import Row, Rows
from bcmb_jax.terminal import Display, say_next
from conversion.mapping import weights_fingerprint

T = TypeVar("T")


def main(options: argparse.Namespace) -> None:
    """Write the predictions."""
    model = conversion.from_pretrained(
        options.model,
        None,
        precision=options.precision,
        online=options.online,
        hub_token_file=options.hub_token_file,
    )
    form = Form(model.head, bool(options.id_column), options.with_text)
    format, is_folder = options.output_format, options.output_format == "brat"
    if not model.head.classifies:
        raise InputError(f"{options.model} is no classifier: make one with bcmb finetune")
    if not form.tags and format in ("brat", "omop"):
        raise InputError(f"{format} is for entities, and {options.model} predicts labels of texts")
    rows = Rows(options.input, options.text_column, options.id_column)
    parts = ("text_column", "id_column", "output_format", "with_text", "aggregation")
    facts = facts_of(model, rows, [str(getattr(options, name)) for name in parts])

    def each(texts: Iterator[str]) -> Iterator[predictions.Prediction]:
        if form.tags:
            return model.tag_each(texts, options.aggregation)
        return model.classify_each(texts)

    with journal(options.output, facts, folder=is_folder) as kept:
        if not is_folder and not kept.rows:
            kept.add(TEXTUAL[format][0](form), 0)
        for row, prediction in answers(rows, each, kept.rows, kept.commit):
            if is_folder:
                write_brat(form, row, prediction, kept.partial, named=not rows.is_table)
                kept.add(b"")
            else:
                kept.add(TEXTUAL[format][1](form, row, prediction))
        kept.commit()
    print(f"written: {options.output}, of {kept.rows:,} rows")
    say_next("read {}: rows are numbered as in the input, from 1 on", options.output)


def facts_of(model: conversion.PretrainedModel, rows: Rows, options: list[str]) -> dict[str, str]:
    """Return what results depend on, so that none of another are added to them."""
    weights = jax.device_get(model.params)
    return {
        "model": weights_fingerprint(dict(sorted(weights.items()))),
        "input": rows.digest(),
        "setting": " ".join([model.precision, *options]),
    }


def answers(
    rows: Rows,
    each: Callable[[Iterator[str]], Iterable[T]],
    done: int = 0,
    commit: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Row, T | None]]:
    """Yield rows with their results, None where there is no text.

    Args:
      each: the results of texts, read no further ahead than needed.
      done: rows to leave out, the first ones.
      commit: called before the model gets another text, when those before have their results.
    """
    display, waiting, skipped = Display(), deque[Row](), Counter[str]()
    if done:
        display.say(f"{done:,} rows are there already; going on with the next")

    def texts() -> Iterator[str]:
        for row in islice(rows, done, None):
            waiting.append(row)
            if row.text is None:
                skipped[row.skipped] += 1
            else:
                commit()
                yield row.text

    for result in each(texts()):
        while waiting[0].text is None:
            yield waiting.popleft(), None
        row = waiting.popleft()
        yield row, result
        display.progress(rows.fraction, f"row {row.number:,}")
    for row in waiting:
        yield row, None
    display.close()
    for why, count in skipped.items():
        display.say(f"{count:,} rows without a result: {why}")
