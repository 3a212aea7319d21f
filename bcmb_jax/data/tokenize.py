# SPDX-License-Identifier: Apache-2.0
"""The one place that turns a tokenizer's folder into "these ids for this text".

Preparing, filling masks, evaluation and exports all use it, so that whatever a folder says about
padding, truncation and special tokens, a text has the same ids everywhere.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import processors

from bcmb_jax.data.tokenizer_file import open_file
from bcmb_jax.errors import InputError, reason
from bcmb_jax.hub import locate

TOKENIZER_FILES = ("tokenizer.json", "special_tokens_map.json", "tokenizer_config.json")

_PIECE = 2**20  # characters of a text that are tokenized at once, in 85 times their memory

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
    """A fast tokenizer that gives whole documents as plain ids.

    Args:
      reviewed: whether somebody has looked for names in the vocabulary (see `vocabulary`).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special: SpecialTokens,
        directory: Path | None = None,
        *,
        reviewed: bool = False,
    ):
        before = backend.to_str()
        _make_uniform(backend, backend.id_to_token(special.cls), backend.id_to_token(special.sep))
        self.is_uniform = backend.to_str() == before
        """Whether the tokenizer came without padding or truncation and puts special tokens."""
        self._backend = backend
        self._vocabulary = backend.get_vocab(with_added_tokens=True)
        self.special, self.reviewed = special, reviewed
        self.directory = directory
        self.vocab_size = max(self._vocabulary.values()) + 1
        letter = [special.cls, *backend.encode("a", add_special_tokens=False).ids, special.sep]
        if backend.encode("a").ids != letter:
            raise InputError(
                f"tokenizer {directory or 'given'}: its post_processor puts other tokens around a "
                "text than the cls_token before and the sep_token after it, which training does; "
                "correct it in tokenizer.json, or remove it there and it is made"
            )

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
        """Return an int32 array of ids per text: no special tokens, no truncation, no padding.

        A huge text is cut before single spaces, and its pieces are tokenized one after another.
        """
        if any(len(text) > _PIECE for text in texts):
            pieces = ([self.encode_batch([piece])[0] for piece in _cut(text)] for text in texts)
            return [np.concatenate(ids) for ids in pieces]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_marked(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return int32 ids with `[CLS]` and `[SEP]` around; special tokens written out are taken.

        For texts that ask something of a model; `encode_batch` is for notes.
        """
        encodings = self._marked_backend.encode_batch(list(texts))
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    @cached_property
    def _marked_backend(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self._backend.to_str())

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
        self.save_backend(directory / "tokenizer.json")
        if self.directory is not None:
            for name in TOKENIZER_FILES[1:]:
                if (self.directory / name).is_file():
                    shutil.copyfile(self.directory / name, directory / name)
            return
        names = {f"{role}_token": self.token(i) for role, i in asdict(self.special).items()}
        text = json.dumps(names, indent=2) + "\n"
        (directory / "special_tokens_map.json").write_text(text, encoding="utf-8")

    def save_backend(self, file: Path) -> None:
        """Write a tokenizer.json: the bytes that were loaded, or else as it is used here."""
        if self.is_uniform and self.directory is not None:
            shutil.copyfile(self.directory / "tokenizer.json", file)
        else:
            self._backend.save(str(file))


def _cut(text: str) -> Iterator[str]:
    """Yield a text in pieces, each but the first from a single space between words if there is one.

    No word is cut there, and tokenizers that keep a space keep it with the word after it.
    """
    start = 0
    while len(text) - start > _PIECE:
        space = _last_single_space(text, start + 1, start + _PIECE)
        yield text[start:space]
        start = space
    yield text[start:]


def _last_single_space(text: str, start: int, stop: int) -> int:
    """Return the place of the last space between words in a range, or its end if there is none."""
    place = stop
    while (place := text.rfind(" ", start, place)) > start:
        if not text[place - 1].isspace() and not text[place + 1].isspace():
            return place
    return stop


def open_backend(directory: Path) -> tokenizers.Tokenizer:
    """Load the fast tokenizer of a folder, of any encoder, or make it of the folder's vocabulary.

    Raises:
      InputError: no fast tokenizer can be made of the folder.
    """
    file = directory / "tokenizer.json"
    try:
        if file.is_file():
            backend = open_file(file)
        else:
            import transformers  # reads vocab.txt, or vocab.json and merges.txt

            slow_or_fast: Any = transformers.AutoTokenizer.from_pretrained(
                str(directory), local_files_only=True, trust_remote_code=False
            )
            backend = slow_or_fast.backend_tokenizer
    except InputError:
        raise
    except Exception as error:  # transformers raises errors of many types
        raise InputError(
            f"no fast tokenizer can be made of {directory}: {reason(error)}"
        ) from error
    names = _special_names(directory)
    _make_uniform(backend, names.get("cls"), names.get("sep"))
    return backend


def _make_uniform(backend: tokenizers.Tokenizer, cls: str | None, sep: str | None) -> None:
    """Turn off stored padding and truncation, and have `[CLS]` and `[SEP]` put around every text.

    A tokenizer that puts special tokens already keeps its own.
    """
    backend.no_truncation()
    backend.no_padding()
    # Fidelity: upstream turns a "[MASK]" or "[SEP]" written in a note into the special token;
    # here it stays text, so that special ids in a row are only ever our own.
    backend.encode_special_tokens = True
    ids = [(token, token and backend.token_to_id(token)) for token in (cls, sep)]
    if backend.num_special_tokens_to_add(False) or any(index is None for _, index in ids):
        return
    frame = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B {sep}", special_tokens=ids
    )
    own = backend.post_processor  # ByteLevel's trims offsets
    backend.post_processor = processors.Sequence([own, frame]) if own else frame


def with_word_space(backend: tokenizers.Tokenizer) -> tuple[tokenizers.Tokenizer, str]:
    """Copy a tokenizer for single words and whole texts alike: all words begin with a space.

    Only tokenizers that work on bytes tell a word after a space from one without.

    Returns:
      The copy, and what must stand before a word or text: a space where another pre-tokenizer sees
      it before the bytes are made, so that only the text itself can bring one; else nothing.
    """
    state = json.loads(backend.to_str())
    steps = [*_pre_tokenizers(state["pre_tokenizer"])]
    on_bytes = [step["type"] == "ByteLevel" for step in steps]
    if on_bytes and on_bytes[0]:
        steps[0]["add_prefix_space"] = True
    copy = tokenizers.Tokenizer.from_str(json.dumps(state))
    copy.encode_special_tokens = backend.encode_special_tokens
    return copy, " " if any(on_bytes[1:]) and not on_bytes[0] else ""


def _pre_tokenizers(step: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield the pre-tokenizers in their order, those of sequences in sequences too."""
    if step and step["type"] == "Sequence":
        for inner in step["pretokenizers"]:
            yield from _pre_tokenizers(inner)
    elif step:
        yield step


def load_tokenizer(name: str, *, reviewed: bool = False) -> Tokenizer:
    """Load a folder with `tokenizer.json`, or what `hub.fetch` has fetched for another name.

    Args:
      reviewed: as for `Tokenizer`.

    Raises:
      InputError: there is nothing of this name, or it has no cls, sep, pad, mask or unk token.
    """
    directory = locate(name, "tokenizer")
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            f"tokenizer {name} has no tokenizer.json: save a fast tokenizer there with "
            "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    backend = open_file(file)
    return Tokenizer(backend, _special_tokens(directory, backend), directory, reviewed=reviewed)


def _special_names(directory: Path) -> dict[str, str]:
    """Return the special tokens that a folder names, by role."""
    declared: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = directory / name
        if file.is_file():
            try:
                declared.update(json.loads(file.read_text(encoding="utf-8")))
            except ValueError as error:
                raise InputError(f"tokenizer file {file} is not JSON: {error}") from error
    entries = {role: declared.get(f"{role}_token") for role in ("cls", "sep", "pad", "mask", "unk")}
    contents = {r: e["content"] if isinstance(e, dict) else e for r, e in entries.items()}
    return {role: content for role, content in contents.items() if content is not None}


def _special_tokens(directory: Path, backend: tokenizers.Tokenizer) -> SpecialTokens:
    names = _special_names(directory)
    ids: dict[str, int] = {}
    for role in ("cls", "sep", "pad", "mask", "unk"):
        token = names.get(role)
        index = None if token is None else backend.token_to_id(token)
        if index is None:
            problem = "is not named" if token is None else f"{token!r} is not in the vocabulary"
            raise InputError(
                f"tokenizer {directory}: the {role}_token {problem}; name all of cls, sep, pad, "
                "mask and unk in special_tokens_map.json or tokenizer_config.json"
            )
        ids[role] = index
    return SpecialTokens(**ids)
