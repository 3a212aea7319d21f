# SPDX-License-Identifier: Apache-2.0
"""Find what looks like names and record numbers in tokenized documents.

Nobody has marked them, so two patterns stand for them: words of four letters or more with a capital
that are nowhere written small, and runs of five digits or more. Only those in few documents, all of
one split, count: whatever stands in both splits is no secret of the training text.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from bcmb_jax.data.tokenize import Tokenizer

KINDS = {
    "names": re.compile(r"(?<![^\W_])[^\W\d_]{4,}(?![^\W_])"),
    "numbers": re.compile(r"(?<!\d)\d{5,}(?!\d)"),
}
"""Kind → pattern; of words, those with one capital at the beginning are taken."""
FEW = 5
"""Documents that an identifier may stand in: the notes of a patient, not the name of a ward."""

Occurrences = list[np.ndarray]
"""Positions of the tokens of an identifier, for each place where it stands."""


def find_identifiers(
    tokenizer: Tokenizer,
    splits: Mapping[str, Sequence[np.ndarray]],
    leave_out: Collection[str] = (),
) -> dict[tuple[str, str], list[tuple[int, Occurrences]]]:
    """Return the first identifier of each kind in each document that has one.

    Args:
      splits: documents of each split, `[N]` ids without special tokens.
      leave_out: words and numbers that are none.

    Returns:
      (kind, split) → the number of the document, and where its identifier stands.
    """
    pieces = _Pieces(tokenizer)
    found: dict[tuple[str, str, int], dict[str, Occurrences]] = {}
    places: dict[str, set[tuple[str, int]]] = defaultdict(set)
    written_small: set[str] = set()
    for split, documents in splits.items():
        for number, tokens in enumerate(documents):
            text, starts = pieces.join(tokens)
            for kind, pattern in KINDS.items():
                here: dict[str, Occurrences] = defaultdict(list)
                for match in pattern.finditer(text):
                    word = match.group()
                    if kind == "names" and not word.istitle():
                        written_small.add(word.lower())
                        continue
                    places[word].add((split, number))
                    here[word].append(_covering(starts, *match.span()))
                found[kind, split, number] = here
    identifiers = {
        word
        for word, where in places.items()
        if len(where) <= FEW
        and len({split for split, _ in where}) == 1
        and word.lower() not in written_small
        and word not in leave_out
    }
    results: dict[tuple[str, str], list[tuple[int, Occurrences]]] = {
        (kind, split): [] for kind in KINDS for split in splits
    }
    for (kind, split, number), here in found.items():
        if first := next((x for word, x in here.items() if word in identifiers), None):
            results[kind, split].append((number, first))
    return results


def _covering(starts: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return the tokens that a stretch of the text is in; `starts` has one more, the text's end."""
    first = int(np.searchsorted(starts, start, side="right")) - 1
    return np.arange(first, int(np.searchsorted(starts, stop, side="left")))


class _Pieces:
    """The text of every token as it stands in a document, with the space before it."""

    def __init__(self, tokenizer: Tokenizer):
        tokens = {int(i): tokenizer.token(i) for i in tokenizer.ordinary_ids}
        continued = any(token.startswith("##") for token in tokens.values())
        self._texts = {i: self._text(tokenizer, i, token, continued) for i, token in tokens.items()}

    @staticmethod
    def _text(tokenizer: Tokenizer, i: int, token: str, continued: bool) -> str:
        text = tokenizer.decode([i])
        if token.startswith("##"):  # of WordPiece; there all others begin a word
            return text.removeprefix("##")
        spaced = continued or token.startswith("\u2581")
        return f" {text.strip()}" if spaced else text

    def join(self, tokens: np.ndarray) -> tuple[str, np.ndarray]:
        """Return the text, and where in it each token starts, and its end."""
        texts = [self._texts.get(int(i), " ") for i in tokens]
        return "".join(texts), np.cumsum([0, *map(len, texts)])
