# SPDX-License-Identifier: Apache-2.0
"""Text to token ids: a thin layer over a Hugging Face fast tokenizer; no padding, no truncation."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from bcmb_jax.data.hub import snapshot
from bcmb_jax.errors import InputError

TOKENIZER_FILES = ("tokenizer.json", "special_tokens_map.json", "tokenizer_config.json")

# Our own words: Latin and non-Latin letters, composed and decomposed accents, numbers, units,
# runs of spaces, line ends and a special token spelled out.
_PROBE = (
    "Pt. is a 67-year-old woman w/ dyspnoea x3 days;  BP 132/84, SpO2 94 % on 2 L.\n\n"
    "\tIL-6 \u2265 12.5 pg/mL, \u03b2-blocker, na\u00efve cafe\u0301, \u00b5g, "
    "\u5fc3\u96fb\u56f3 [MASK]\r\n"
)


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the five special tokens of a BERT-like tokenizer."""

    cls: int
    sep: int
    pad: int
    mask: int
    unk: int


class Tokenizer:
    """A fast tokenizer that gives whole documents as plain ids."""

    def __init__(
        self, backend: tokenizers.Tokenizer, special: SpecialTokens, directory: Path | None = None
    ):
        backend.no_truncation()
        backend.no_padding()
        # Fidelity: upstream turns a "[MASK]" or "[SEP]" written in a note into the special token;
        # here it stays text, so that special ids in a row are only ever our own.
        backend.encode_special_tokens = True
        self._backend = backend
        self._vocabulary = backend.get_vocab(with_added_tokens=True)
        self.special = special
        self.directory = directory
        self.vocab_size = max(self._vocabulary.values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of vocabulary, special ids and a probe's encoding: what decides token ids."""
        vocabulary = sorted((index, token) for token, index in self._vocabulary.items())
        probe = self.encode_batch([_PROBE])[0].tolist()
        identity = json.dumps([vocabulary, asdict(self.special), probe], ensure_ascii=True)
        return hashlib.sha256(identity.encode()).hexdigest()

    @cached_property
    def ordinary_ids(self) -> np.ndarray:
        """`[N]` int32, ascending: real vocabulary entries, neither special nor `[unusedN]`."""
        added = self._backend.get_added_tokens_decoder()
        special = {index for index, token in added.items() if token.special}
        special.update(asdict(self.special).values())
        ordinary = [
            index
            for token, index in self._vocabulary.items()
            if index not in special and not re.fullmatch(r"\[unused\d+\]", token)
        ]
        return np.array(sorted(ordinary), dtype=np.int32)

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Return an int32 array of ids per text: no special tokens, no truncation, no padding."""
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of ids, special tokens included."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def token(self, index: int) -> str:
        """Return the vocabulary entry of one id."""
        token = self._backend.id_to_token(int(index))
        if token is None:
            raise ValueError(f"id {index} is not in the vocabulary of {self.vocab_size}")
        return token

    def save(self, directory: Path) -> None:
        """Write a folder that `load_tokenizer` and transformers read."""
        directory.mkdir(parents=True)
        if self.directory is not None:
            for name in TOKENIZER_FILES:
                if (self.directory / name).is_file():
                    shutil.copyfile(self.directory / name, directory / name)
            return
        self._backend.save(str(directory / "tokenizer.json"))
        names = {f"{role}_token": self.token(i) for role, i in asdict(self.special).items()}
        text = json.dumps(names, indent=2) + "\n"
        (directory / "special_tokens_map.json").write_text(text, encoding="utf-8")


def load_tokenizer(path_or_id: str) -> Tokenizer:
    """Load a folder with `tokenizer.json`, or else a hub id (from the local cache if it is there).

    Raises:
      InputError: there is no such folder or id, or it names no cls, sep, pad, mask or unk token.
    """
    path = Path(path_or_id).expanduser()
    directory = path if path.is_dir() else snapshot(path_or_id, "tokenizer", TOKENIZER_FILES)
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            f"tokenizer {path_or_id} has no tokenizer.json: save a fast tokenizer there with "
            "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception, with the position
        raise InputError(f"tokenizer file {file} is not readable: {error}") from error
    return Tokenizer(backend, _special_tokens(directory, backend), directory)


def _special_tokens(directory: Path, backend: tokenizers.Tokenizer) -> SpecialTokens:
    declared: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = directory / name
        if file.is_file():
            try:
                declared.update(json.loads(file.read_text(encoding="utf-8")))
            except ValueError as error:
                raise InputError(f"tokenizer file {file} is not JSON: {error}") from error
    ids: dict[str, int] = {}
    for role in ("cls", "sep", "pad", "mask", "unk"):
        entry = declared.get(f"{role}_token")
        token = entry["content"] if isinstance(entry, dict) else entry
        index = None if token is None else backend.token_to_id(token)
        if index is None:
            problem = "is not named" if token is None else f"{token!r} is not in the vocabulary"
            raise InputError(
                f"tokenizer {directory}: the {role}_token {problem}; name all of cls, sep, pad, "
                "mask and unk in special_tokens_map.json or tokenizer_config.json"
            )
        ids[role] = index
    return SpecialTokens(**ids)
