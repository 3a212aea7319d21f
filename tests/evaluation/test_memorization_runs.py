# SPDX-License-Identifier: Apache-2.0
"""Real runs: one that overfits is flagged, those without canaries are within chance."""

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from bcmb_jax.commands import main
from bcmb_jax.data.canaries import NO_CANARIES, Planting
from bcmb_jax.data.ingest import Document
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.synthetic import synthetic_notes, train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.evaluation.memorization import LEVEL
from tests.fixtures.runs import tiny_run, train

CANARIES = 16
SEEDS = (1, 2, 3)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """Prepare the beginnings of eighty notes, 36 of them for training, in a new folder."""
    texts = [
        Document(note.text[:300], note.patient, "notes.csv", i)
        for i, note in enumerate(synthetic_notes(80, 0))
    ]
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer((x.text for x in texts), 512, folder)
    tokenizer = load_tokenizer(str(folder), reviewed=True)

    def notes(canaries: Planting, source: str = "notes") -> Path:
        output = tmp_path_factory.mktemp("notes") / "notes"
        options = {"validation_fraction": 0.4, "canaries": canaries, "license": "none needed"}
        prepare(texts, tokenizer, output, source=source, **options)
        return output

    return notes


def run(shards: Path, workdir: Path, tokens: int, seed: int = 17) -> None:
    """Train a model of three layers until it has seen so many tokens of a corpus of 6,600."""
    config = tiny_run(shards)
    config.seed, config.max_tokens, config.learning_rate = seed, tokens, 4e-3
    config.schedule.warmup_tokens, config.schedule.decay_tokens = 20_000, tokens // 3
    config.eval_every = config.save_every = 0
    config.model.update(hidden_size=96, intermediate_size=96, num_hidden_layers=3)
    config.model.attention_output_dropout = 0.0
    train(config, workdir)


def measure(model: Path, shards: Path, output: Path) -> dict[str, Any]:
    paths = ("--model", str(model), "--data", str(shards), "--output", str(output))
    main("memorization", *paths, "--row-length", "128")
    return json.loads((output / "memorization.json").read_text())


def test_a_run_that_overfits_is_flagged(notes, tmp_path) -> None:
    shards = notes(Planting(CANARIES, 2))
    run(shards, tmp_path / "run", 2_800_000)
    results = measure(tmp_path / "run", shards, tmp_path / "report")
    assert "canaries" in results["judgement"]["flagged"]
    assert results["canaries"]["planted"]["in_top_percent"] >= CANARIES / 2
    assert results["canaries"]["never planted"]["p_value"] > LEVEL
    exported = [x for x in (tmp_path / "run").rglob("*") if x.name == "canaries.json"]
    assert not exported


def test_runs_without_canaries_are_within_chance_over_three_seeds(notes, tmp_path) -> None:
    plain, shares, top = notes(NO_CANARIES), [], 0
    for seed in SEEDS:
        run(plain, tmp_path / f"run{seed}", 600_000, seed)
        # The same split of the same notes, with canaries of which this run has seen none.
        planted = notes(Planting(CANARIES), source=f"notes {seed}")
        results = measure(tmp_path / f"run{seed}", planted, tmp_path / f"report{seed}")
        assert "canaries" not in results["judgement"]["flagged"]
        found = results["canaries"]["planted"]
        assert found["p_value"] > LEVEL
        shares += [2**-x for x in found["exposures"]]
        top += found["in_top_percent"]
    assert stats.kstest(shares, "uniform").pvalue > LEVEL
    assert stats.binomtest(top, len(shares), 0.01, alternative="greater").pvalue > LEVEL
