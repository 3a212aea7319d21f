# SPDX-License-Identifier: Apache-2.0
"""Canaries: invented persons with invented record numbers, planted in training documents.

A model that gives the right number to an invented name can only have it from training. Names are
two words of three syllables (343,000 each), numbers have seven digits (9,000,000); both are drawn
alike for all, so that without training no number is likelier than another of as many tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bcmb_jax.data.shard_writer import ShardWriter
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.files import read_json, write_json

CANARIES = "canaries.json"
"""File of a prepared folder, never of an export, that lists what was planted."""
FIRST_NUMBER, LAST_NUMBER = 1_000_000, 9_999_999
NAME, NUMBER = 1, 3
"""Which pieces of a canary's sentence are its name and its number."""

_NUMBER = " {number}"
_PIECES = ("The record number of", " {name}", " is", _NUMBER, ".\n")
_ABOUT = (
    f"made-up sentences ({''.join(_PIECES).strip()}) planted before training documents, each in as "
    "many as repeats says; bcmb memorization measures with them; nobody else needs them"
)
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


class Canary(NamedTuple):
    """An invented person."""

    name: str
    number: str

    def encode(self, tokenizer: Tokenizer) -> list[np.ndarray]:
        """Return the ids of the sentence in five pieces, `NAME` and `NUMBER` among them.

        Pieces are tokenized one by one: whatever the number, the others have the same ids.
        """
        return tokenizer.encode_batch([piece.format(**self._asdict()) for piece in _PIECES])


def draw_canaries(count: int, random: np.random.Generator) -> list[Canary]:
    """Draw canaries of different names."""
    drawn: dict[str, str] = {}
    while len(drawn) < count:
        syllables = random.choice(_SYLLABLES, 6)
        name = " ".join("".join(word).capitalize() for word in (syllables[:3], syllables[3:]))
        drawn[name] = str(random.integers(FIRST_NUMBER, LAST_NUMBER + 1))
    return [Canary(name, number) for name, number in drawn.items()]


class Planting(NamedTuple):
    """How many canaries are planted, and in how many training documents each."""

    sentences: int
    repeats: int = 1

    def options(self) -> dict[str, int] | None:
        """Return the numbers for the report; None if nothing is planted."""
        return self._asdict() if self.sentences else None

    def plant(self, folder: Path, tokenizer: Tokenizer, draws: bytes, writer: ShardWriter) -> None:
        """Put canaries before documents of `writer`, one a document, and list them in `folder`.

        Args:
          draws: decides names, numbers and documents.

        Raises:
          InputError: there are too few documents.
        """
        if not self.sentences:
            return
        documents = writer.documents()
        if self.sentences * self.repeats > len(documents):
            raise InputError(
                f"--canaries {self.sentences:,}, planted {self.repeats:,} times each, need "
                f"{self.sentences * self.repeats:,} training documents, and there are "
                f"{len(documents):,}: plant fewer"
            )
        random = np.random.Generator(np.random.PCG64(int.from_bytes(draws)))
        canaries = draw_canaries(self.sentences, random)
        sentences = [np.concatenate(x.encode(tokenizer)) for x in canaries] * self.repeats
        chosen = random.permutation(documents)[: len(sentences)]
        for sentence, tokens in zip(sentences, writer.take(chosen), strict=True):
            writer.add(np.concatenate([sentence, tokens]))
        listed = [canary._asdict() for canary in canaries]
        value = {"about": _ABOUT, "repeats": self.repeats, "canaries": listed}
        write_json(folder / CANARIES, value)


NO_CANARIES = Planting(0)


def read_canaries(folder: Path) -> tuple[list[Canary], int]:
    """Return the canaries of a prepared folder and how often each was planted; none, 0 if none.

    Raises:
      InputError: their list is damaged.
    """
    file = folder / CANARIES
    if not file.is_file():
        return [], 0
    try:
        values = read_json(file)
        canaries = [Canary(str(x["name"]), str(x["number"])) for x in values["canaries"]]
        return canaries, int(values["repeats"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is damaged: run bcmb prepare --canaries again") from error


def draw_numbers(count: int, random: np.random.Generator) -> list[str]:
    """Draw different record numbers, in any order."""
    drawn = random.choice(LAST_NUMBER + 1 - FIRST_NUMBER, count, replace=False)
    return [str(FIRST_NUMBER + n) for n in drawn]


def encode_numbers(numbers: Sequence[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Return the ids that each number has in a canary."""
    return tokenizer.encode_batch([_NUMBER.format(number=number) for number in numbers])
