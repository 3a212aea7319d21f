# SPDX-License-Identifier: Apache-2.0
"""The embedded default data: invented clinical notes, a tokenizer for them, and their shards.

It makes training, tests and the demonstration run without any data or network; a model of it knows
our templates and nothing else.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import tokenizers

from bcmb_jax.data.ingest.record import Document
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.shards import FORMAT_VERSION
from bcmb_jax.data.synthetic.notes import Note, synthetic_notes
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError

__all__ = ["DEMO_CLOZES", "Note", "prepare_synthetic", "synthetic_notes", "train_tokenizer"]

DEMO_CLOZES = (
    "Mrs. Alvarez is a 71 year old [MASK] with hypertension who presents with chest pain.",
    "CT angiogram chest demonstrated acute left-sided pulmonary [MASK] without right heart strain.",
    "# atrial fibrillation: continue home [MASK] 5 mg PO BID, rate controlled",
    "# hypothyroidism: continue home levothyroxine 75 [MASK] PO daily",
    "MRI brain showed acute left middle cerebral artery [MASK].",
    "Mr. Patel was admitted with heart failure. [MASK] was diuresed with IV furosemide.",
)
"""Sentences for a model of the synthetic notes; the notes teach what belongs at each `[MASK]`."""

_SPECIAL = {role: f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}
_MAX_LENGTH = 8192
_MARKER = "synthetic.json"


def train_tokenizer(texts: Iterable[str], vocab_size: int, directory: str | Path) -> None:
    """Trains a byte-level BPE of exactly `vocab_size` entries, laid out as ModernBERT's.

    The pairs come first, then the special tokens, then `[unusedN]` for what the texts left over.
    Writes a new folder that `load_tokenizer` and transformers 4.48 … 5.x read; the same texts give
    the same bytes. Raises `InputError` if the folder exists or the vocabulary is too small.
    """
    directory = Path(directory)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(_SPECIAL)
    if vocab_size < smallest:
        raise InputError(
            f"vocabulary of {vocab_size} is too small: {smallest} are needed for the "
            f"{len(alphabet)} bytes and {len(_SPECIAL)} special tokens"
        )
    if directory.exists():
        raise InputError(f"tokenizer folder {directory} exists already: choose another")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - len(_SPECIAL),
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    special = [
        tokenizers.AddedToken(token, lstrip=role == "mask", normalized=False, special=True)
        for role, token in _SPECIAL.items()
    ]
    tokenizer.add_special_tokens(special)
    left = vocab_size - tokenizer.get_vocab_size()
    unused = [tokenizers.AddedToken(f"[unused{n}]", normalized=True) for n in range(left)]
    tokenizer.add_tokens(unused)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    with _partial_folder(directory) as place:
        partial = Path(place) / directory.name
        partial.mkdir()
        tokenizer.save(str(partial / "tokenizer.json"))
        for name, content in _transformers_files(tokenizer).items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.rename(directory)


def _transformers_files(tokenizer: tokenizers.Tokenizer) -> dict[str, dict[str, Any]]:
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    added = {
        str(index): {key: getattr(token, key) for key in keys}
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    names = {f"{role}_token": token for role, token in _SPECIAL.items()}
    config = {
        "added_tokens_decoder": added,
        "clean_up_tokenization_spaces": True,
        **names,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": _MAX_LENGTH,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    by_content = {entry["content"]: entry for entry in added.values()}
    special = {
        role: {key: by_content[token][key] for key in keys if key != "special"}
        for role, token in names.items()
    }
    return {"tokenizer_config.json": config, "special_tokens_map.json": special}


def prepare_synthetic(
    directory: str | Path,
    *,
    vocab_size: int,
    notes: int = 3000,
    seed: int = 0,
    validation_fraction: float = 0.05,
) -> Path:
    """Makes `directory/tokenizer` and `directory/shards/{train,validation}`; returns `…/shards`.

    What another run made with the same options and the same code is used as it is; anything else it
    made is replaced. The folder appears complete or not at all, also when several processes make
    it. Raises `InputError` if `directory` holds what this function did not make.
    """
    directory = Path(directory).absolute()
    made_with = {
        "notes": notes,
        "vocab_size": vocab_size,
        "seed": seed,
        "validation_fraction": validation_fraction,
        "code": _code_version(),
    }
    if _is_ready(directory, made_with):
        return directory / "shards"
    if directory.exists() and not (directory / _MARKER).is_file() and any(directory.iterdir()):
        raise InputError(
            f"{directory} holds something other than synthetic notes: choose another folder"
        )
    with _partial_folder(directory) as place:
        partial = Path(place) / "new"
        documents = [
            Document(note.text, note.patient, note.kind, i)
            for i, note in enumerate(synthetic_notes(notes, seed))
        ]
        train_tokenizer((d.text for d in documents), vocab_size, partial / "tokenizer")
        prepare(
            documents,
            load_tokenizer(str(partial / "tokenizer")),
            partial / "shards",
            source="synthetic",
            validation_fraction=validation_fraction,
            seed=seed,
            license="Apache-2.0, invented text",
        )
        (partial / _MARKER).write_text(json.dumps(made_with, indent=1) + "\n", encoding="utf-8")
        if _is_ready(directory, made_with):
            return directory / "shards"  # another process was faster
        if directory.exists():
            directory.rename(Path(place) / "old")
        partial.rename(directory)
    return directory / "shards"


def _is_ready(directory: Path, made_with: dict[str, Any]) -> bool:
    marker = directory / _MARKER
    if not marker.is_file() or not all((directory / d).is_dir() for d in ("tokenizer", "shards")):
        return False
    return json.loads(marker.read_text(encoding="utf-8")) == made_with


def _partial_folder(directory: Path) -> tempfile.TemporaryDirectory[str]:
    """A new folder beside `directory`; clears what runs killed over an hour ago have left."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    for left in directory.parent.glob(f".{directory.name}.*.partial"):
        with suppress(FileNotFoundError):  # cleared by another process
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(
        prefix=f".{directory.name}.", suffix=".partial", dir=directory.parent
    )


def _code_version() -> str:
    """Changes whenever the notes, the tokenizer or the shards could."""
    digest = hashlib.sha256(f"shards {FORMAT_VERSION}".encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
