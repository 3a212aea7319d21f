# SPDX-License-Identifier: Apache-2.0
"""Strings to token ids, with the places of words and masks where they are asked for."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer, open_backend, with_word_space
from bcmb_jax.errors import InputError
from bcmb_jax.inference.entities import Span, split_words

PIECE = 2**20
"""Characters that are tokenized at once, in about 85 times their memory."""
WORDS = 2**17
"""Words of one text that are tokenized at once."""

_HALF_PAIR = re.compile("[\ud800-\udfff]")


class Text(NamedTuple):
    """A text as a model reads it.

    Attributes:
      ids: `[N]` int32, without special tokens around it.
      tokens: positions in `ids` `[words]` whose tags count, one for each word that has a token.
      spans: where those words are in the text.
    """

    text: str
    ids: np.ndarray
    tokens: np.ndarray = np.zeros(0, int)
    spans: Sequence[Span] = ()


class TextTokenizer:
    """The tokenizer of a model's folder, used on batches of strings in parallel.

    Args:
      vocab_size: of the model.

    Raises:
      InputError: there is no tokenizer, or it has more entries than the model.
    """

    def __init__(self, directory: Path, vocab_size: int):
        self.tokenizer: Tokenizer = load_tokenizer(str(directory))
        if self.tokenizer.vocab_size > vocab_size:
            raise InputError(
                f"the tokenizer has {self.tokenizer.vocab_size:,} entries and the model "
                f"{vocab_size:,}; give the one it was trained with"
            )
        self._backend = open_backend(directory)
        self._of_words, self._before = with_word_space(self._backend)

    def plain(self, texts: list[str]) -> list[Text]:
        """Tokenize texts; special tokens written in them are text."""
        return [*map(Text, texts, self.tokenizer.encode_batch(texts))]

    def marked(self, texts: list[str]) -> list[Text]:
        """Tokenize texts; special tokens written in them are taken as such."""
        return [*map(Text, texts, (ids[1:-1] for ids in self.tokenizer.encode_marked(texts)))]

    def each_token(self, texts: list[str]) -> list[Text]:
        """Tokenize texts as `plain` does, each token a word of its own."""
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            Text(text, np.array(e.ids, np.int32), np.arange(len(e.ids)), e.offsets)
            for text, e in zip(texts, encodings, strict=True)
        ]

    def each_word(self, texts: list[str]) -> list[Text]:
        """Tokenize words, each after a space, as taggers are fine-tuned; first tokens count."""
        spans = [split_words(text) for text in texts]
        pieces = [(i, at) for i, words in enumerate(spans) for at in range(0, len(words), WORDS)]
        encodings = self._of_words.encode_batch(
            [
                [self._before + texts[i][start:end] for start, end in spans[i][at : at + WORDS]]
                for i, at in pieces
            ],
            is_pretokenized=True,
            add_special_tokens=False,
        )
        ids: list[list[np.ndarray]] = [[] for _ in texts]
        words: list[list[np.ndarray]] = [[] for _ in texts]
        for (i, at), encoding in zip(pieces, encodings, strict=True):
            ids[i].append(np.array(encoding.ids, np.int32))
            words[i].append(np.array(encoding.word_ids, int) + at)
        nothing = [np.zeros(0, np.int32)]
        tokenized = []
        for i, text in enumerate(texts):
            # Words without a token have no tag, as when fine-tuning they have no target.
            with_token, first = np.unique(np.concatenate(nothing + words[i]), return_index=True)
            found = [spans[i][word] for word in with_token]
            tokenized.append(Text(text, np.concatenate(nothing + ids[i]), first, found))
        return tokenized


def in_chunks(
    texts: Iterable[str], characters: int, tokenize: Callable[[list[str]], list[Text]]
) -> Iterator[list[Text]]:
    """Yield tokenized texts in chunks of about so many characters, one made ahead by a thread.

    Raises:
      InputError: something else than a string is among them.
    """
    with ThreadPoolExecutor(1) as pool:
        ahead: Future[list[Text]] | None = None
        for chunk in _chunks(texts, characters):
            before, ahead = ahead, pool.submit(_in_pieces, chunk, tokenize)
            if before is not None:
                yield before.result()
        if ahead is not None:
            yield ahead.result()


def _in_pieces(texts: list[str], tokenize: Callable[[list[str]], list[Text]]) -> list[Text]:
    return [text for piece in _chunks(texts, PIECE) for text in tokenize(piece)]


def _chunks(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    if not isinstance(texts, Iterable):
        raise InputError(f"texts are a {type(texts).__name__}; give a string or several")
    chunk: list[str] = []
    size = 0
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise InputError(f"text {number} is a {type(text).__name__}; give strings")
        if not text.isascii() and _HALF_PAIR.search(text):
            raise InputError(f"text {number} holds half of a surrogate pair; decode it as UTF-8")
        chunk.append(text)
        size += len(text)
        if size >= characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
