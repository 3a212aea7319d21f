# SPDX-License-Identifier: Apache-2.0
"""MedQA: exam questions as jsonl, or as tables made of it, with their options spelled out."""

import ast
from collections.abc import Iterator
from typing import Any

from bcmb_jax.data.ingest.by_name import read_by_name
from bcmb_jax.data.ingest.record import Record


def read_questions(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields a record a question; the column `options` becomes lines as "A. aspirin"."""
    return read_by_name(stream, file, text_column, group_column, reshape=_spell_options)


def _spell_options(values: dict[str, Any]) -> dict[str, Any]:
    options = values.get("options")
    if options is None:
        return values
    try:
        if isinstance(options, str):  # a table holds the value as Python prints it
            options = ast.literal_eval(options)
        if isinstance(options, list):  # of {"key": "A", "value": "aspirin"}
            options = {option["key"]: option["value"] for option in options}
        spelled = "\n".join(key + ". " + text for key, text in options.items())
    except (ValueError, SyntaxError, TypeError, LookupError, AttributeError, RecursionError):
        return {**values, "options": ()}  # which is no text, and counted as such
    return {**values, "options": spelled}
