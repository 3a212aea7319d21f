# SPDX-License-Identifier: Apache-2.0
"""No agreement is lost on any path that weights take: the longest of them, in one piece."""

import functools
import shutil
from pathlib import Path

import pytest

import conversion
from bcmb_jax import agreements
from bcmb_jax.agreements import Agreement
from bcmb_jax.config import RunConfig
from bcmb_jax.data.synthetic import prepare_synthetic
from bcmb_jax.errors import DONE
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.load import load_jax_classifier
from bcmb_jax.evaluation.protocol import Settings
from bcmb_jax.files import read_json
from bcmb_jax.training import checkpoint
from bcmb_jax.training.train import train
from conversion.export import write_composer, write_huggingface, write_orbax
from conversion.weights import read
from tests.fixtures.runs import tiny_run
from tests.fixtures.shards import change_index
from tests.fixtures.tiny_weights import random_weights
from tests.fixtures.torch_models import transformers

pytestmark = pytest.mark.torch

ALPHA, BETA, GAMMA = "ALPHA 1.0", "BETA DUA", "GAMMA licence"


@pytest.fixture(params=["written", pytest.param("trained", marks=pytest.mark.slow)])
def second_phase(request, tmp_path) -> Path:
    """A run on data under BETA, started from a checkpoint of data under ALPHA; or what it leaves.

    That a run merges both is a matter of tests/training/test_train.py too.
    """
    alpha = Agreement("alpha", ALPHA, 320)
    if request.param == "written":
        weights = random_weights()._replace(agreements=(alpha, Agreement("beta", BETA, 5)))
        write_orbax(weights, empty(tmp_path / "second"))
        shutil.copytree(request.getfixturevalue("tiny_tokenizer"), tmp_path / "second/tokenizer")
        return tmp_path / "second"
    shards = prepare_synthetic(tmp_path / "beta", vocab_size=512, notes=150)
    for split in ("train", "validation"):
        change_index(shards / split, source="beta", license=BETA)
    config = tiny_run(shards)
    config.max_tokens, config.init_from = 1000, str(tmp_path / "first")
    run = RunConfig.from_dict(config.to_dict())
    write_orbax(random_weights(run.model)._replace(agreements=(alpha,)), empty(tmp_path / "first"))
    load = functools.partial(conversion.load_initial, config.init_from)
    assert train(run, tmp_path / "second", load) == DONE
    return tmp_path / "second"


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def stated(folder: Path) -> list[str]:
    """Return the agreements that stand in the manifest and in the model card of a folder."""
    manifest = read_json(folder / "manifest.json")["agreements"]
    card = (folder / "README.md").read_text()
    return [x["license"] for x in manifest if f"| {x['license']} |" in card]


def test_no_agreement_is_lost(second_phase, tmp_path) -> None:
    # init_from: the checkpoint of phase 2 has both, and so has what is exported from it.
    both = agreements.of_checkpoint(checkpoint.read_meta(checkpoint.latest(second_phase)))
    assert [x.license for x in both] == [ALPHA, BETA]
    write_huggingface(read(second_phase), empty(tmp_path / "export"))
    assert stated(tmp_path / "export") == [ALPHA, BETA]

    # A model that is fine-tuned on data of its own agreement, and kept.
    splits = {"train": [Example("1", "a b", (0,))], "validation": [], "test": []}
    dataset = Dataset("single_label", ("no", "yes"), splits)
    third = Agreement("csv (fine-tuning)", GAMMA)
    model = load_jax_classifier(str(tmp_path / "export"), dataset, Settings(), agreement=third)
    model.classifier.reset(0)
    model.save(tmp_path / "kept", "csv")
    assert stated(tmp_path / "kept") == [ALPHA, BETA, GAMMA]

    # transformers' own save_pretrained, which writes a config.json and weights alone.
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "kept")
    theirs.save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs" / "manifest.json").exists()
    write_huggingface(read(tmp_path / "theirs"), empty(tmp_path / "again"))
    assert stated(tmp_path / "again") == [ALPHA, BETA, GAMMA]

    # Orbax, whose manifest is part of its metadata.
    write_orbax(read(tmp_path / "again"), empty(tmp_path / "orbax"))
    record = agreements.to_json((*both, third))
    assert checkpoint.read_meta(tmp_path / "orbax")["manifest"]["agreements"] == record
    write_huggingface(read(tmp_path / "orbax"), empty(tmp_path / "back"))
    assert stated(tmp_path / "back") == [ALPHA, BETA, GAMMA]

    # Composer, the file alone. It holds masked LMs, so the record is put on one.
    weights = read(tmp_path / "export")._replace(agreements=(*both, third))
    write_composer(weights, empty(tmp_path / "composer"))
    (file,) = (tmp_path / "composer").glob("*.pt")
    moved = file.rename(empty(tmp_path / "moved") / "weights.pt")
    write_huggingface(read(moved), empty(tmp_path / "from_composer"))
    assert stated(tmp_path / "from_composer") == [ALPHA, BETA, GAMMA]
