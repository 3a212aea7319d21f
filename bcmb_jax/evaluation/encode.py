# SPDX-License-Identifier: Apache-2.0
"""Turn examples into token ids and targets, the same for every model and backend."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from bcmb_jax.data.tokenize import open_backend, with_word_space
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Kind, Text
from bcmb_jax.files import read_json, write_json
from bcmb_jax.hub import locate

IGNORED = -100  # a position without a target
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


class Encoded(NamedTuple):
    """An example as a model reads it.

    Attributes:
      tokens: `[N]` int32, special tokens included.
      targets: single_label: `[]` int32; multi_label: `[labels]` float32, 0 or 1; tagging: `[N]`
        int32, the tag at the first token of each word and `IGNORED` elsewhere.
      starts: tagging: `[words]` int32, position of the first token of each word, -1 for a word
        without a token (cut off, or nothing to the tokenizer); else empty.
      cut: whether the text was longer than the model reads.
    """

    tokens: np.ndarray
    targets: np.ndarray
    starts: np.ndarray
    cut: bool


def as_labels(
    kind: Kind, labels: Sequence[str], choice: np.ndarray, example: Encoded
) -> tuple[int, ...]:
    """Return a model's choice in the form of `Example.labels`.

    Args:
      choice: the class of `example` `[]`, which labels hold `[labels]` (bool), or the tag of every
        token `[N]`; longer arrays are read as far as the example goes.
    """
    if kind == "single_label":
        return (int(choice),)
    if kind == "multi_label":
        return tuple(np.flatnonzero(choice).tolist())
    return tuple(int(choice[s]) if s >= 0 else labels.index("O") for s in example.starts)


class TaskTokenizer:
    """A fast tokenizer for any encoder, with its own special tokens around every text.

    Fidelity: words are encoded with a space before them, the first too, as upstream asks for with
    `add_prefix_space=True`; transformers 5.23 ignores that for ModernBERT's own files.

    Args:
      max_length: tokens that the model reads, special tokens included; longer texts are cut.

    Raises:
      InputError: there is no tokenizer.
    """

    def __init__(self, name: str, max_length: int):
        self.max_length = max_length
        self.directory = _directory(name)
        self._plain = open_backend(self.directory)
        self._backend, self._before = with_word_space(self._plain)
        self.fingerprint = hashlib.sha256(self._backend.to_str().encode()).hexdigest()
        self.vocab_size = 1 + max(self._backend.get_vocab(with_added_tokens=True).values())
        self._backend.enable_truncation(max_length)

    def write(self, folder: Path) -> None:
        """Write the tokenizer as it reads texts here, so that others read them alike.

        Its files are those of its own folder, but that a tokenizer on bytes puts a space before the
        first word by itself. One that would need the space in the text stays as it is.
        """
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (self.directory / name).is_file():
                shutil.copyfile(self.directory / name, folder / name)
        words, _ = with_word_space(self._plain)
        if words.to_str() != self._plain.to_str():
            words.save(str(folder / "tokenizer.json"))
            config = folder / "tokenizer_config.json"
            values = read_json(config) if config.is_file() else {}
            write_json(config, values | {"add_prefix_space": True})  # transformers 4 obeys this

    def encode(self, dataset: Dataset, examples: Sequence[Example]) -> list[Encoded]:
        """Tokenize examples and place their labels."""
        words = dataset.kind == "tagging"
        texts: list[Any] = [
            [*map(self._spaced, e.text)] if words else self._spaced(str(e.text)) for e in examples
        ]
        encodings = self._backend.encode_batch(texts, is_pretokenized=words)
        classes = len(dataset.labels)
        return [
            _encoded(dataset.kind, classes, *pair) for pair in zip(encodings, examples, strict=True)
        ]

    def divide(self, example: Example, tags: Sequence[str]) -> list[Example]:
        """Divide words with tags into parts that the model can read, never inside an entity.

        An entity that is itself longer is divided.
        """
        encoding = self._backend.encode([*map(self._spaced, example.text)], is_pretokenized=True)
        pieces = (encoding, *encoding.overflowing)
        sizes = Counter(word for piece in pieces for word in piece.word_ids if word is not None)
        room = self.max_length - sum(encoding.special_tokens_mask)
        borders, length = [0], 0
        for word in range(len(example.text)):
            length += sizes[word]
            if length > room and word > borders[-1]:
                inside = range(borders[-1] + 1, word + 1)
                whole = [i for i in inside if not tags[example.labels[i]].startswith("I-")]
                borders.append(max(whole, default=word))
                length = sum(sizes[i] for i in range(borders[-1], word + 1))
        return [
            example._replace(text=example.text[start:stop], labels=example.labels[start:stop])
            for start, stop in pairwise([*borders, len(example.text)])
        ]

    def count_tokens(self, text: Text) -> int:
        """Count the tokens of a text or of a sentence's words, uncut and without special tokens.

        A text is counted without the space that `encode` puts before it, as in the paper's Table 6
        (67.7 tokens a sentence for ChemProt; with the space 67.6).
        """
        if isinstance(text, str):
            return len(self._plain.encode(text, add_special_tokens=False).ids)
        words = self._backend.encode(
            [*map(self._spaced, text)], is_pretokenized=True, add_special_tokens=False
        )
        return sum(len(piece.ids) for piece in (words, *words.overflowing))

    def _spaced(self, text: str) -> str:
        return text if text.startswith(" ") else self._before + text


def _encoded(kind: Kind, classes: int, encoding: tokenizers.Encoding, example: Example) -> Encoded:
    tokens = np.array(encoding.ids, np.int32)
    starts = np.full(len(example.text) if kind == "tagging" else 0, -1, np.int32)
    targets: np.ndarray
    if kind == "single_label":
        targets = np.array(example.labels[0], np.int32)
    elif kind == "multi_label":
        targets = np.zeros(classes, np.float32)
        targets[list(example.labels)] = 1
    else:
        targets = np.full(len(tokens), IGNORED, np.int32)
        for position, word in enumerate(encoding.word_ids):
            if word is not None and starts[word] < 0:
                starts[word] = position
                targets[position] = example.labels[word]
    return Encoded(tokens, targets, starts, bool(encoding.overflowing))


def _directory(name: str) -> Path:
    directory = locate(name, "tokenizer")
    # Without a vocabulary transformers silently makes a tokenizer that knows no word.
    if not any(any(directory.glob(name)) for name in VOCABULARIES):
        raise InputError(f"{name} has no tokenizer: none of {', '.join(VOCABULARIES)}")
    return directory
