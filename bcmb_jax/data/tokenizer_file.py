# SPDX-License-Identifier: Apache-2.0
"""A tokenizer.json, opened only if it takes time and memory in proportion to the texts.

Patterns in it may try every way to divide a text, replacements double it again and again, tables
fill the memory. What can be counted is counted before; patterns are tried on texts that are hard
for them, a little longer each time. Other texts may still be slow for a pattern made to be so.
"""

import contextlib
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from bcmb_jax.errors import InputError, reason
from bcmb_jax.files import read_json

MOST = {"vocab": 2**20, "merges": 2**20, "added_tokens": 2**14}
"""Entries of tables; the largest of published encoders have 900,000, 580,000 and 1,500."""
MOST_GROWTH = 32
"""How many times longer normalizers may make a text."""
MOST_LETTERS = 1000
"""Letters of a word that WordPiece divides, in time that grows with their square; usually 100."""
MOST_SECONDS = 0.25
"""Seconds of one thread for a text that patterns are tried on; others take a thousandth."""
_LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
_LONG = (512, 1024, 2048, 4096, 8192, 16384)
_USUAL = ("a", "0", " ", "\n", ".", "-")


def open_file(file: Path) -> tokenizers.Tokenizer:
    """Open a tokenizer.json.

    Raises:
      InputError: it is none, or may take any amount of time or memory.
    """
    try:
        values = read_json(file)
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
        parts = list(_parts(values))
        _check_tables(values, parts)
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception, with the position
        raise InputError(f"tokenizer file {file} is not readable: {reason(error)}") from error
    patterns = [x["Regex"] for x in parts if isinstance(x.get("Regex"), str)]
    if patterns or any(x.get("type") == "Precompiled" for x in parts):
        slow = _slow(backend, patterns)
        if slow:
            raise InputError(
                f"tokenizer file {file}: {slow}; a pattern or table in it runs away on some texts"
            )
    return backend


def _parts(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects in those of normalizer, pre-tokenizer and decoder, at any depth."""
    waiting = [values.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _check_tables(values: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    model = values.get("model") or {}
    tables = {"added_tokens": values.get("added_tokens")} | {x: model.get(x) for x in MOST}
    for name, most in MOST.items():
        number = len(tables[name] or ())
        if number > most:
            raise ValueError(f"{number:,} {name}, more than {most:,}")
    if model.get("max_input_chars_per_word", 0) > MOST_LETTERS:
        raise ValueError(f"max_input_chars_per_word is more than {MOST_LETTERS:,}")
    growth = math.prod(map(_growth, parts))
    if growth > MOST_GROWTH:
        raise ValueError(f"it makes texts up to {growth:,.0f} times longer")


def _growth(part: dict[str, Any]) -> float:
    kind = part.get("type")
    if kind in ("ByteLevel", "Precompiled"):
        return 2
    pattern = part.get("pattern") or {}
    found = len(pattern.get("String") or "") if isinstance(pattern, dict) else 0
    content = part.get("content") if kind == "Replace" else part.get("prepend")
    return max(1.0, len(content or "") / max(1, found))


def _slow(backend: tokenizers.Tokenizer, patterns: list[str]) -> str:
    """Return what goes wrong with texts made of what the patterns look for, or nothing."""
    letters = dict.fromkeys([*_USUAL, "é", "中", "_", *"".join(patterns)])
    words = dict.fromkeys(word for x in patterns for word in re.findall(r"\w{2,8}", x))
    seeds = [*letters, *words][:80]
    texts = [seed * n + end for n in _LENGTHS for seed in seeds for end in ("\x01", "")]
    texts += [seed * n + "\x01" for n in _LONG for seed in _USUAL]
    for text in texts:
        before = time.thread_time()
        try:
            with _silent():
                encoding = backend.encode(text, add_special_tokens=False)
        except Exception as error:
            return reason(error)
        except BaseException as error:  # a panic of the library in Rust
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return reason(error)
        if len(encoding.ids) > 4 * MOST_GROWTH * len(text):
            return f"{len(text):,} characters become {len(encoding.ids):,} tokens"
        if (seconds := time.thread_time() - before) > MOST_SECONDS:
            return f"{len(text):,} characters take {seconds:.1f} s"
    return ""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Leave out what a panic writes to standard error beside what it raises."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
