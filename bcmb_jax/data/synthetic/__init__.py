# SPDX-License-Identifier: Apache-2.0
"""The embedded default data: invented clinical notes, a tokenizer for them, and their shards.

It makes training, tests and the demonstration run without any data or network; a model of it knows
our templates and nothing else.
"""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers

from bcmb_jax.data.ingest.record import Document
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.shards import FORMAT_VERSION
from bcmb_jax.data.synthetic.notes import Note, synthetic_notes
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.files import new_directory, read_json, write_json

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
    """Train a byte-level BPE of exactly `vocab_size` entries, laid out as ModernBERT's.

    The pairs come first, then the special tokens, then `[unusedN]` for what the texts left over.
    Writes a new folder that `load_tokenizer` and transformers 4.48 … 5.x read; the same texts give
    the same bytes.

    Raises:
      InputError: the folder exists or the vocabulary is too small.
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
    with new_directory(directory) as folder:
        tokenizer.save(str(folder / "tokenizer.json"))
        for name, content in _transformers_files(tokenizer).items():
            write_json(folder / name, content)


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
    """Make `directory/tokenizer` and `directory/shards/{train,validation}`; return `…/shards`.

    Output of another run with the same options and the same code is used as it is; any other such
    output is replaced. The folder appears complete or not at all, also when several processes make
    it.

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
    if _is_ready(directory, made_with):
        return directory / "shards"
    if directory.exists() and not (directory / _MARKER).is_file() and any(directory.iterdir()):
        raise InputError(
            f"{directory} holds something other than synthetic notes: choose another folder"
        )
    with new_directory(directory) as new:
        documents = [
            Document(note.text, note.patient, note.kind, i)
            for i, note in enumerate(synthetic_notes(notes, seed))
        ]
        train_tokenizer((d.text for d in documents), vocab_size, new / "tokenizer")
        prepare(
            documents,
            load_tokenizer(str(new / "tokenizer")),
            new / "shards",
            source="synthetic",
            validation_fraction=validation_fraction,
            seed=seed,
            license="Apache-2.0, invented text",
        )
        write_json(new / _MARKER, made_with, indent=1)
        if _is_ready(directory, made_with):
            shutil.rmtree(new)  # another process was faster
    return directory / "shards"


def _is_ready(directory: Path, made_with: dict[str, Any]) -> bool:
    marker = directory / _MARKER
    if not marker.is_file() or not all((directory / d).is_dir() for d in ("tokenizer", "shards")):
        return False
    return bool(read_json(marker) == made_with)


def _code_version() -> str:
    """Return a hash that changes whenever the notes, the tokenizer or the shards could."""
    digest = hashlib.sha256(f"shards {FORMAT_VERSION}".encode())
    for file in sorted(path for path in Path(__file__).parent.iterdir() if path.is_file()):
        digest.update(file.read_bytes())
    return digest.hexdigest()
