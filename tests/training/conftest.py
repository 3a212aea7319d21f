# SPDX-License-Identifier: Apache-2.0
"""Notes about a hundred made-up persons, to train on where no value of them may be seen."""

from pathlib import Path

import pytest

from bcmb_jax import commands
from bcmb_jax.data.tokenize import load_tokenizer
from tests.fixtures.canaries import NAMES, RECORDS, Scanner, note


@pytest.fixture(scope="package")
def persons(shards, tmp_path_factory) -> Path:
    """Shards of notes about persons, with the tokenizer of `shards`."""
    folder = tmp_path_factory.mktemp("persons")
    rows = "".join(f'{RECORDS[i % 20]},"{note(i)}",{NAMES[i % 30]}\n' for i in range(300))
    (folder / "notes.csv").write_text(f"mrn,text,patient\n{rows}")
    options = ["--source", "csv", "--input", folder / "notes.csv", "--text-column", "text"]
    options += ["--group-column", "mrn", "--tokenizer", shards / "tokenizer"]
    options += ["--output", folder / "shards", "--validation-fraction", "0.2"]
    commands.main("prepare", *map(str, options))
    return folder / "shards"


@pytest.fixture(scope="package")
def scanner(shards) -> Scanner:
    """A scanner that also knows the token ids in `persons`."""
    tokenizer = load_tokenizer(str(shards / "tokenizer"))
    return Scanner(lambda text: tokenizer.encode_batch([text])[0].tolist())
