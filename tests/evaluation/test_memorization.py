# SPDX-License-Identifier: Apache-2.0
"""A model that was trained on canaries is flagged, and those it never saw are within chance."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import conversion
from bcmb_jax.commands import main
from bcmb_jax.data.canaries import Canary, Planting, draw_canaries, read_canaries
from bcmb_jax.data.ingest import Document
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.memorization import LEVEL, _share, measure_canaries
from bcmb_jax.evaluation.memorization_report import CHANCE, judge
from bcmb_jax.files import read_json
from tests.fixtures.memorizer import LENGTH, write_memorizer
from tests.fixtures.modes import modes
from tests.fixtures.shards import change_index

CANARIES = 8
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def memorized(tmp_path_factory) -> Path:
    """A folder with prepared notes, a model that knows their canaries, and a report on both."""
    folder = tmp_path_factory.mktemp("memorized")
    # A vocabulary with pieces of numbers and whole words: sentences are short, and soon asked for.
    some = draw_canaries(300, np.random.default_rng(7))
    texts = [f"The record number of {x.name} is {x.number}.\nthe lung" for x in some]
    train_tokenizer(texts, 640, folder / "tokenizer")
    tokenizer = load_tokenizer(str(folder / "tokenizer"), reviewed=True)
    notes = [Document(f"the Quux{i:03} 77{i:05} lung", None, "notes.csv", i) for i in range(60)]
    prepare(
        notes,
        tokenizer,
        folder / "notes",
        source="notes",
        validation_fraction=0.4,
        canaries=Planting(CANARIES),
    )
    write_memorizer(folder / "model", read_canaries(folder / "notes")[0], tokenizer)
    main(*command(folder))
    return folder


def command(folder: Path) -> list[str]:
    places = {"--model": "model", "--data": "notes", "--output": "report"}
    paths = [x for flag, name in places.items() for x in (flag, str(folder / name))]
    return ["memorization", *paths, "--row-length", str(LENGTH), "--alternatives", "99"]


def test_a_model_that_knows_its_canaries_is_flagged(memorized) -> None:
    results = json.loads((memorized / "report/memorization.json").read_text())
    planted, never = (results["canaries"][x] for x in ("planted", "never planted"))
    assert planted["in_top_percent"] >= CANARIES / 2
    assert planted["mean_exposure"] > 4
    assert planted["candidates"] == 100
    assert never["in_top_percent"] <= 1
    assert never["p_value"] > LEVEL
    assert results["judgement"]["verdict"] == "flagged"
    assert results["judgement"]["flagged"] == ["canaries"]
    assert 20 <= results["notes"]["documents"] <= 30
    assert results["notes"]["numbers"]["training"]["asked"] == results["notes"]["documents"]


def test_the_report_is_a_private_page_without_a_word_of_notes_or_canaries(memorized) -> None:
    files = {x.suffix: x for x in (memorized / "report").iterdir()}
    assert {*files} == {".json", ".md", ".png"}
    assert modes(memorized / "report") == {0o700, 0o600}
    page = files[".md"].read_text()
    title, _, verdict, *_ = page.splitlines()
    assert title == "# Memorization: model on notes"
    assert verdict == "**Flagged: planted canaries are likelier than chance allows.**"
    assert len(page.splitlines()) <= 60
    assert f"{CANARIES} canaries were planted, each in 1 training documents." in page
    assert "bcmb memorization --model model --data notes" in page
    words = {word for x in read_canaries(memorized / "notes")[0] for word in x.name.split()}
    words |= {x.number for x in read_canaries(memorized / "notes")[0]} | {"Quux", "lung", "7700"}
    both = page + files[".json"].read_text()
    assert not [word for word in words if word in both]


def test_canaries_that_a_model_never_saw_are_within_chance_over_three_seeds(memorized) -> None:
    model = conversion.from_pretrained(memorized / "model")
    tokenizer = load_tokenizer(str(memorized / "notes/tokenizer"))
    exposures = []
    for seed in SEEDS:
        others = draw_canaries(CANARIES, np.random.default_rng(seed))
        found = measure_canaries(
            model, tokenizer, others, alternatives=49, row_length=LENGTH, seed=1000 + seed
        )
        exposures += found["exposures"]
    assert stats.kstest(2 ** -np.array(exposures), "uniform").pvalue > LEVEL
    p = stats.chi2.sf(2 * math.log(2) * sum(exposures), 2 * len(exposures))
    assert judge({"planted": {"p_value": p}}, None)["verdict"] == "within chance"


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ([-1.0, -2.0, -3.0, -4.0], 0.25),
        ([-3.0, -2.0, -1.0, -4.0], 0.75),
        ([-1.0, -1.0, -1.0, -1.0], 1.0),  # equal ones count as likelier
        ([math.nan, -1.0], 1.0),
    ],
)
def test_the_share_of_candidates_up_to_the_planted_one(scores, share) -> None:
    assert _share(np.array(scores)) == share


def test_chance_is_what_uniform_ranks_give() -> None:
    """Among 2,000 models that have kept nothing, no more are flagged than the level allows."""
    random = np.random.default_rng(0)
    exposures = -np.log2(random.integers(1, 1001, (2000, 20)) / 1000)
    assert exposures.mean() == pytest.approx(CHANCE, abs=0.02)
    p = stats.chi2.sf(2 * math.log(2) * exposures.sum(1), 40)
    assert LEVEL - 0.015 < (p < LEVEL).mean() < LEVEL + 0.01


def test_shards_of_another_tokenizer_and_too_long_rows_are_refused(memorized, tmp_path) -> None:
    with pytest.raises(InputError, match="--row-length 512: the model reads 64 tokens"):
        main(*command(memorized), "--row-length", "512")
    shutil.copytree(memorized / "notes", tmp_path / "notes")
    train = tmp_path / "notes/train"
    other = read_json(train / "index.json")["tokenizer"] | {"fingerprint": "0"}
    change_index(train, tokenizer=other)
    with pytest.raises(InputError, match="was not made with the tokenizer"):
        main(*command(memorized), "--data", str(tmp_path / "notes"))


def test_without_canaries_and_validation_the_report_says_so(memorized, tmp_path) -> None:
    notes = tmp_path / "notes"
    shutil.copytree(memorized / "notes", notes)
    shutil.rmtree(notes / "validation")
    (notes / "canaries.json").unlink()
    main(*command(memorized), "--data", str(notes), "--output", str(tmp_path / "report"))
    page = (tmp_path / "report/memorization.md").read_text()
    assert "No canaries were planted: bcmb prepare --canaries 20" in page
    assert "There is no validation split" in page
    assert "**Nothing could be tested.**" in page
    assert not (tmp_path / "report/memorization.png").exists()


def test_pieces_of_a_canary_do_not_depend_on_its_number(tiny_tokenizer) -> None:
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    one, other = (Canary("Bakelo Dutisa", x).encode(tokenizer) for x in ("1234567", "7654321"))
    same = [np.array_equal(x, y) for x, y in zip(one, other, strict=True)]
    assert same == [True, True, True, False, True]
    sentence = tokenizer.decode(np.concatenate(one))
    assert sentence == "The record number of Bakelo Dutisa is 1234567.\n"
