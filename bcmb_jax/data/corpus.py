# SPDX-License-Identifier: Apache-2.0
"""The data a run's config names, opened and checked: shards, tokenizer and packing plan."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bcmb_jax.config import DataConfig
from bcmb_jax.data.plan import PackingPlan
from bcmb_jax.data.shards import Shards, open_shards
from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.files import read_json, write_json


@dataclass(frozen=True)
class Corpus:
    """The data of a run; source names are unique."""

    train: tuple[Shards, ...]
    validation: tuple[Shards, ...]
    tokenizer: Tokenizer
    plan: PackingPlan

    def verify(self, record: Path, say: Callable[[str], None] = lambda _: None) -> None:
        """Check the tokens of all shards, but for files that are as `record` says they were.

        Args:
          record: a file that is written when all are checked, so that resuming does not read
            everything again.
          say: called with a line before shards are read.

        Raises:
          InputError: tokens that are not those that were written.
        """
        try:
            before = read_json(record)
        except (OSError, ValueError):
            before = {}
        now = {}
        for shards in (*self.train, *self.validation):
            name, state = str(shards.directory.absolute()), shards.state_of_file()
            if not isinstance(before, dict) or before.get(name) != state:
                say(f"checking {shards.index['tokens']:,} tokens of {shards.directory}")
                shards.verify()
            now[name] = state
        write_json(record, now)


def open_corpus(config: DataConfig, *, tokenizer: str, vocab_size: int, seed: int) -> Corpus:
    """Open the shards and the tokenizer of a run and plan its rows.

    Args:
      tokenizer: a name that `hub.locate` knows; empty: the copy beside the first shards.
      vocab_size: of the model.

    Raises:
      InputError: a missing or damaged folder, shards of another tokenizer, a vocabulary larger
        than the model's, weights that do not match the sources.
    """
    train = tuple(open_shards(Path(d) / "train") for d in config.train)
    beside = [d for d in config.train if (Path(d) / "validation").is_dir()]
    validation = tuple(open_shards(Path(d) / "validation") for d in config.validation or beside)
    loaded = load_tokenizer(tokenizer or str(Path(config.train[0]) / "tokenizer"))
    for shards in (*train, *validation):
        _check(shards, loaded, vocab_size)
    for sources in (train, validation):
        names = [shards.name for shards in sources]
        if len(set(names)) < len(names):
            raise InputError(f"two sources have the same name in {names}: rename a folder's source")
    if config.weights and len(config.weights) != len(train):
        raise InputError(
            f"data.weights has {len(config.weights)} entries for the {len(train)} folders of "
            "data.train"
        )
    plan = PackingPlan(
        [shards.lengths for shards in train],
        weights=config.weights or (1.0,) * len(train),
        row_length=config.row_length,
        max_document_length=config.max_document_length,
        seed=seed,
    )
    return Corpus(train, validation, loaded, plan)


def _check(shards: Shards, tokenizer: Tokenizer, vocab_size: int) -> None:
    if shards.tokenizer_fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"{shards.directory} was made with another tokenizer (fingerprint "
            f"{shards.tokenizer_fingerprint[:12]}, vocabulary {shards.vocab_size:,}) than "
            f"{tokenizer.directory} ({tokenizer.fingerprint[:12]}, {tokenizer.vocab_size:,}): "
            "give --config.tokenizer the shards' own, or prepare the data again"
        )
    if shards.vocab_size > vocab_size:
        raise InputError(
            f"{shards.directory} has a vocabulary of {shards.vocab_size:,}, the model only "
            f"{vocab_size:,}: set --config.model.vocab_size={shards.vocab_size} or more"
        )
