# SPDX-License-Identifier: Apache-2.0
"""Predictions and vectors of files, through ends of the process that nobody announces."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import conversion
from bcmb_jax import commands
from bcmb_jax.commands.options import encode, predict
from bcmb_jax.errors import InputError
from bcmb_jax.inference import text_model
from bcmb_jax.inference.predictions import TEXTUAL
from bcmb_jax.model.heads import POOLINGS, Head
from conversion.export import write_huggingface
from tests.fixtures.canaries import NAMES, Scanner, hits, note
from tests.fixtures.modes import modes
from tests.fixtures.tiny_weights import random_weights

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [f"the left lung, {'a stroke ' * (i % 5)}\nis clear" if i % 7 else "" for i in range(30)]
TAGS = ("B-Sign", "I-Sign", "O")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory, tiny_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("tagger") / "tagger"
    folder.mkdir()
    weights = random_weights(head=Head("token_classification", TAGS))
    write_huggingface(weights._replace(tokenizer=tiny_tokenizer), folder)
    return folder


def write_notes(file: Path, texts: list[str]) -> Path:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("id", "note"), *((f"p{i}", x) for i, x in enumerate(texts))])
    return file


def given(model: Path, notes: Path, output: Path) -> list[str]:
    return ["--model", str(model), "--input", str(notes), "--output", str(output)]


def test_entities_are_those_of_the_model_whenever_it_is_stopped(
    tagger, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(text_model.CHARACTERS_AT_ONCE, "cpu", 200)
    notes, out = write_notes(tmp_path / "notes.csv", TEXTS), tmp_path / "out.jsonl"
    arguments = [*given(tagger, notes, out), "--id-column", "id"]
    whole = conversion.PretrainedModel.tag_each
    expected = conversion.from_pretrained(tagger, None).tag(TEXTS)

    def stopped(self, texts, *rest):
        for i, result in enumerate(whole(self, texts, *rest)):
            if i == 13:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(conversion.PretrainedModel, "tag_each", stopped)
    with pytest.raises(KeyboardInterrupt):
        commands.main("predict", *arguments)
    assert not out.exists()
    committed = json.loads((tmp_path / "out.jsonl.partial.json").read_text())["rows"]
    assert 4 < committed < 16
    with pytest.raises(InputError, match="were begun with another setting: give another --output"):
        commands.main("predict", *arguments, "--with-text")
    monkeypatch.setattr(conversion.PretrainedModel, "tag_each", whole)
    commands.main("predict", *arguments)
    rows = [*map(json.loads, out.read_text().splitlines())]
    assert [x["row"] for x in rows] == [*range(1, 31)]
    assert [x["id"] for x in rows] == [f"p{i}" for i in range(30)]
    for text, entities, row in zip(TEXTS, expected, rows, strict=True):
        if not text:
            assert row["skipped"] == "empty"
            continue
        found = [(x["start"], x["end"], x["label"]) for x in row["entities"]]
        assert found == [x[:3] for x in entities]
    assert sum(len(x.get("entities", ())) for x in rows) > 20
    assert sorted(x.name for x in tmp_path.iterdir()) == ["notes.csv", "out.jsonl"]
    assert modes(out) == {0o600}
    assert "stroke" not in out.read_text()


def test_vectors_are_those_of_the_model(folder, tmp_path) -> None:
    notes = write_notes(tmp_path / "notes.csv", TEXTS)
    expected = conversion.from_pretrained(folder, "encoder").encode(TEXTS, normalize=True)
    for name, more in (("v.npy", []), ("v.parquet", ["--id-column", "id"])):
        commands.main("encode", *given(folder, notes, tmp_path / name), "--normalize", *more)
    array = np.load(tmp_path / "v.npy")
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pydict()
    assert array.shape == expected.shape
    assert array.dtype == np.float32
    assert table["row"] == [*range(1, 31)]
    assert table["id"][4] == "p4"
    for i, text in enumerate(TEXTS):
        assert np.isnan(array[i]).all() == (not text)
        assert (table["vector"][i] is None) == (not text)
        if text:
            np.testing.assert_allclose(array[i], expected[i], atol=1e-5)
            np.testing.assert_array_equal(np.float32(table["vector"][i]), array[i])


def test_no_value_of_a_note_is_written_unless_asked_for(tagger, folder, tmp_path, capfd) -> None:
    notes = tmp_path / "notes.csv"
    notes.write_text("note,name\n" + "".join(f'"{note(i)}",{NAMES[i]}\n' for i in range(20)))
    out = tmp_path / "out"
    for name in ("tags.csv", "tags.jsonl", "tags.ann"):
        commands.main("predict", *given(tagger, notes, out / name))
    commands.main("encode", *given(folder, notes, out / "vectors.parquet"))
    for wrong in (["--text-column", "texts"], ["--id-column", "ids"], ["--text-column", "name,x"]):
        with pytest.raises(InputError) as error:
            commands.main("predict", *given(tagger, notes, out / "wrong.csv"), *wrong)
        assert not hits(str(error.value))
    assert not hits("".join(capfd.readouterr()))
    assert not Scanner().folder(out)
    commands.main("predict", *given(tagger, notes, out / "asked.csv"), "--id-column", "name")
    assert len(Scanner().folder(out)) >= 20


@pytest.mark.slow
def test_a_killed_command_goes_on(tagger, tmp_path) -> None:
    texts = [f"{x} {i}" if x else "" for i, x in enumerate(TEXTS * 2000)]
    notes = write_notes(tmp_path / "notes.csv", texts)
    outputs = [tmp_path / "one.csv", tmp_path / "killed.csv"]
    program = [sys.executable, "-m", "scripts.predict"]
    subprocess.run([*program, *given(tagger, notes, outputs[0])], cwd=ROOT, check=True)
    state, kills = tmp_path / "killed.csv.partial.json", 0
    for least in (1, 12_000):
        process = subprocess.Popen([*program, *given(tagger, notes, outputs[1])], cwd=ROOT)
        while process.poll() is None:
            if state.exists() and json.loads(state.read_text())["rows"] >= least:
                os.kill(process.pid, signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            time.sleep(0.02)
    assert kills >= 1
    if not outputs[1].exists():
        subprocess.run([*program, *given(tagger, notes, outputs[1])], cwd=ROOT, check=True)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert outputs[0].stat().st_size > 1e6


def test_options_offer_what_there_is() -> None:
    assert {*TEXTUAL, "brat"} == {*predict.FORMATS}
    assert text_model.Aggregation.__args__ == predict.AGGREGATIONS
    assert {*encode.POOLINGS} == {*POOLINGS}


@pytest.mark.parametrize(
    ("command", "output", "more", "message"),
    [
        ("predict", "o.xlsx", "", "name an --output-format: "),
        ("predict", "o.csv", "--text-column Zebedee", "not 'Zebedee': correct --text-column"),
        ("predict", "o.csv", "--id-column Zebedee", "none is that of --id-column"),
        ("predict", "notes.csv", "", "notes.csv exists: give another, or remove it"),
        ("encode", "o.npy", "--id-column id", "--id-column is for FILE.parquet"),
        ("encode", "o.csv", "", "o.csv ends in none of .npy .parquet"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(tagger, tmp_path, command, output, more, message) -> None:
    notes = write_notes(tmp_path / "notes.csv", TEXTS)
    with pytest.raises(InputError) as caught:
        commands.main(command, *given(tagger, notes, tmp_path / output), *more.split())
    assert message in str(caught.value)
    assert "stroke" not in str(caught.value)
