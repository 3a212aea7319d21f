# SPDX-License-Identifier: Apache-2.0
"""The embedded default data: invented clinical notes, a tokenizer for them, and their shards.

It makes training, tests and the demonstration run without any data or network; a model of it knows
our templates and nothing else.
"""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import tokenizers

from bcmb_jax.data.ingest.record import Document
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.shards import FORMAT_VERSION
from bcmb_jax.data.synthetic.notes import Note, synthetic_notes
from bcmb_jax.data.synthetic.words import TABLES
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.files import new_directory, read_json, write_json

__all__ = ["DEMO_CLOZES", "Note", "prepare_synthetic", "synthetic_notes", "train_tokenizer"]

DEMO_CLOZES: tuple[str, ...] = tuple(TABLES["clozes"])
"""Sentences for a model of the synthetic notes; the notes teach what belongs at each `[MASK]`."""

_SPECIAL = {role: f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}
_MAX_LENGTH = 8192
_MARKER = "synthetic.json"


def train_tokenizer(texts: Iterable[str], vocab_size: int, directory: str | Path) -> None:
    """Train a byte-level BPE of exactly `vocab_size` entries, laid out as ModernBERT's.

    The pairs come first, then the special tokens, then `[unusedN]` for what the texts left over.
    Writes a new folder that `load_tokenizer` and transformers 4.48 … 5.x read.

    Raises:
      InputError: the folder exists or the vocabulary is too small.
    """
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(_SPECIAL)
    if vocab_size < smallest:
        raise InputError(
            f"vocabulary of {vocab_size} is too small: {smallest} are needed for the "
            f"{len(alphabet)} bytes and {len(_SPECIAL)} special tokens"
        )
    if Path(directory).exists():
        raise InputError(f"tokenizer folder {directory} exists already: choose another")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - len(_SPECIAL),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    for role, token in _SPECIAL.items():
        added = tokenizers.AddedToken(token, lstrip=role == "mask", normalized=False, special=True)
        tokenizer.add_special_tokens([added])
    left = vocab_size - tokenizer.get_vocab_size()
    unused = [tokenizers.AddedToken(f"[unused{n}]", normalized=True) for n in range(left)]
    tokenizer.add_tokens(unused)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    names = {f"{role}_token": token for role, token in _SPECIAL.items()}
    added_tokens = {
        index: {key: getattr(token, key) for key in keys}
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    special = {
        name: {key: entry[key] for key in keys[:-1]}
        for name, token in names.items()
        for entry in added_tokens.values()
        if entry["content"] == token
    }
    config = {
        "added_tokens_decoder": added_tokens,
        "clean_up_tokenization_spaces": True,
        **names,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": _MAX_LENGTH,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    with new_directory(Path(directory)) as folder:
        tokenizer.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", special)


def prepare_synthetic(
    directory: str | Path,
    *,
    vocab_size: int,
    notes: int = 3000,
    seed: int = 0,
    validation_fraction: float = 0.05,
) -> Path:
    """Make `directory/tokenizer` and `directory/shards/{train,validation}`; return `…/shards`.

    Output of the same options and the same code is used as it is; other output of this function is
    replaced. The folder appears complete or not at all, also when several processes make it.

    Raises:
      InputError: `directory` holds what this function did not make.
    """
    directory = Path(directory).absolute()
    made_with = {
        "notes": notes,
        "vocab_size": vocab_size,
        "seed": seed,
        "validation_fraction": validation_fraction,
        "code": _code_version(),
    }
    shards = directory / "shards"
    if _is_ready(directory, made_with):
        return shards
    if directory.exists() and not (directory / _MARKER).is_file() and any(directory.iterdir()):
        raise InputError(
            f"{directory} holds something other than synthetic notes: choose another folder"
        )
    with new_directory(directory, wait=True) as new:
        if _is_ready(directory, made_with):  # another process made it meanwhile
            shutil.rmtree(new)
            return shards
        documents = [
            Document(note.text, note.patient, note.kind, i)
            for i, note in enumerate(synthetic_notes(notes, seed))
        ]
        train_tokenizer((d.text for d in documents), vocab_size, new / "tokenizer")
        prepare(
            documents,
            load_tokenizer(str(new / "tokenizer"), reviewed=True),  # of invented notes
            new / "shards",
            source="synthetic",
            validation_fraction=validation_fraction,
            seed=seed,
            license="Apache-2.0, invented text",
        )
        write_json(new / _MARKER, made_with, indent=1)
    return shards


def _is_ready(directory: Path, made_with: dict[str, object]) -> bool:
    marker = directory / _MARKER
    complete = all((directory / name).is_dir() for name in ("tokenizer", "shards"))
    return complete and marker.is_file() and bool(read_json(marker) == made_with)


def _code_version() -> str:
    """Return a hash that changes whenever the notes, the tokenizer or the shards could."""
    digest = hashlib.sha256(f"shards {FORMAT_VERSION}".encode())
    for file in sorted(path for path in Path(__file__).parent.iterdir() if path.is_file()):
        digest.update(file.read_bytes())
    return digest.hexdigest()
