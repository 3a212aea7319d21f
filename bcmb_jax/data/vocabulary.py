# SPDX-License-Identifier: Apache-2.0
"""Names and numbers in a tokenizer's vocabulary.

A tokenizer that was trained on notes has learned the names and numbers that come often in them as
whole entries, and its tokenizer.json travels with every model. Entries are counted here, and never
shown; `find_entries` returns ids, for whoever may see the tokenizer.
"""

import re
from typing import NamedTuple

from bcmb_jax.data.tokenize import Tokenizer

PUBLIC = {
    "c471a33ed2d20b6649325f2b2fdadbe7ad3b4f6cc585880442f8bf07b2db61d3": "ModernBERT",
    "da94693bbc96411913b00ab4a5bd951bdfd022d2ff988e44d9a1e1037cf0908b": "bert-base-uncased",
}
"""Tokenizers that are known to be public, by `Tokenizer.fingerprint`."""
LETTERS = 4
"""Least letters of a name: shorter entries are mostly parts of words."""

_SPACES = ("\u0120", "\u2581")  # how entries are marked that a space stands before
_DIGITS = re.compile(r"\d{4}")


class Review(NamedTuple):
    """Counts of vocabulary entries that may be of persons.

    Attributes:
      public: the tokenizer's name if it is known to be public; then nothing is counted.
      reviewed: whether somebody has looked at them and let them pass.
    """

    public: str | None
    names: int
    digit_runs: int
    reviewed: bool

    @property
    def finding(self) -> str | None:
        """Entries to be looked at, in words and numbers; None if there are none."""
        if self.public or not self.names + self.digit_runs:
            return None
        return (
            f"the tokenizer is not known to be public, and {self.names:,} words that look like "
            f"names and {self.digit_runs:,} runs of four digits or more are in its vocabulary, "
            "which goes with every model"
        )


def review(tokenizer: Tokenizer) -> Review:
    """Count the entries that look like names or numbers, unless the tokenizer is a public one."""
    public = PUBLIC.get(tokenizer.fingerprint)
    names, digit_runs = ([], []) if public else find_entries(tokenizer)
    return Review(public, len(names), len(digit_runs), tokenizer.reviewed)


def find_entries(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids of whole words that look like names, and of runs of four digits or more.

    Words of four letters or more look like names if they begin with a capital and are nowhere in
    the vocabulary without it: words of the language are written small too, in most texts. If no
    word has a capital, all whole words count, as nothing tells names apart. Runs of digits are
    counted with the years among them.
    """
    tokens = {int(i): tokenizer.token(i) for i in tokenizer.ordinary_ids}
    texts = {i: tokenizer.decode([i]).strip().removeprefix("##") for i in tokens}
    words = {i: text for i, text in texts.items() if len(text) >= LETTERS and text.isalpha()}
    small = {text for text in texts.values() if text.islower()}
    names = [i for i, word in words.items() if word[0].isupper() and word.lower() not in small]
    if not any(word[0].isupper() for word in words.values()):
        whole = {i for i, token in tokens.items() if token.startswith(_SPACES)}
        whole = whole or {i for i, token in tokens.items() if not token.startswith("##")}
        names = [i for i in words if i in whole]
    return names, [i for i, text in texts.items() if _DIGITS.search(text)]
