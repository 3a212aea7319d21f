# SPDX-License-Identifier: Apache-2.0
"""From a user's own labels or annotations to a model, and from that to predictions in files."""

import csv
import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax import commands
from bcmb_jax.errors import InputError
from conversion.export import write_huggingface
from tests.fixtures.modes import modes
from tests.fixtures.tiny_weights import TINY, random_weights

SMALL = dataclasses.replace(TINY, num_hidden_layers=1, hidden_size=32, intermediate_size=48)
KINDS = {"a stroke": "Problem", "left artery": "Site"}
SLOWLY = ("--learning-rate", "1e-3", "--batch-size", "8")
FAST = ("--learning-rate", "1e-2", "--batch-size", "8")


@pytest.fixture(scope="module")
def start(tmp_path_factory, tiny_tokenizer) -> Path:
    """A folder with random weights, to be fine-tuned."""
    folder = tmp_path_factory.mktemp("start") / "start"
    folder.mkdir()
    weights = random_weights(SMALL)
    params = {n: np.ones_like(x) if "norm" in n else x for n, x in weights.params.items()}
    write_huggingface(weights._replace(params=params, tokenizer=tiny_tokenizer), folder)
    return folder


def note(draw: random.Random, parts: int) -> tuple[str, list[tuple[int, int, str]]]:
    """A text of some parts, and its entities."""
    text, spans = "", []
    for _ in range(parts):
        part = draw.choice(["the lung is clear", "of the", *KINDS])
        if part in KINDS:
            spans.append((len(text), len(text) + len(part), KINDS[part]))
        text += part + draw.choice([" ", "\n", ", "])
    return text, spans


def write_brat(folder: Path, notes: list) -> Path:
    folder.mkdir()
    for i, (text, spans) in enumerate(notes):
        (folder / f"n{i:03}.txt").write_text(text)
        lines = [f"T{j}\t{k} {s} {e}\t{text[s:e]}\n" for j, (s, e, k) in enumerate(spans)]
        (folder / f"n{i:03}.ann").write_text("".join(lines))
    return folder


@pytest.mark.slow
def test_from_brat_to_entities_with_offsets(start, tmp_path, capsys) -> None:
    draw = random.Random(0)
    data = write_brat(tmp_path / "brat", [note(draw, 3 + i % 20) for i in range(40)])
    model = tmp_path / "tagger"
    given = ("finetune", "--data", str(data), "--model", str(start), "--license", "made up")
    commands.main(*given, "--output", str(model), "--epochs", "12", "--patience", "0", *FAST)
    told = capsys.readouterr()
    assert f"{data} is read as brat" in told.out
    assert "s a step, about" in told.err
    assert told.err.endswith(
        f"next: bcmb predict --model {model} --input FILE --output predictions.csv\n"
    )
    results = json.loads((model / "results.json").read_text())
    assert results["metric"] == "f1"
    assert results["validation"]["f1"] > 0.9
    assert results["seeds"] == [42]
    assert "stroke" not in (model / "results.json").read_text()
    config = json.loads((model / "config.json").read_text())
    labels = ["B-Problem", "B-Site", "I-Problem", "I-Site", "O"]
    assert [*config["id2label"].values()] == labels
    assert config["data_agreements"][-1]["license"] == "made up"
    assert modes(model) == {0o700, 0o600}

    notes = [note(draw, parts) for parts in (5, 0, 150, 9)]  # none; longer than the model reads
    table, found = tmp_path / "notes.csv", tmp_path / "found.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("note",), *((text,) for text, _ in notes)])
    commands.main("predict", "--model", str(model), "--input", str(table), "--output", str(found))
    assert modes(found) == {0o600}
    with found.open() as file:
        rows = [*csv.DictReader(file)]
    entities = {(int(x["row"]), int(x["start"]), int(x["end"]), x["label"]) for x in rows}
    truth = {(i, *span) for i, (_, spans) in enumerate(notes, 1) for span in spans}
    assert len(truth) > 40
    assert len(truth & entities) > 0.9 * max(len(truth), len(entities))
    assert all(0 < float(x["probability"]) <= 1 for x in rows)
    assert "stroke" not in found.read_text()


def write_table(file: Path, rows: int) -> Path:
    """A table of two labels, one of them rare, with a patient for each two rows."""
    draw = random.Random(1)
    records = []
    for i in range(rows):
        rare, often = draw.random() < 0.15, draw.random() < 0.6
        text = " ".join(["a stroke"] * often + ["of the artery"] * rare + ["the lung is clear"])
        records.append({"text": text, "label": ["often"] * often + ["rare"] * rare, "pid": i // 2})
    file.write_text("".join(json.dumps(x) + "\n" for x in records))
    return file


@pytest.mark.slow
def test_weights_and_thresholds_of_rare_labels(start, tmp_path) -> None:
    data = write_table(tmp_path / "own.jsonl", 120)
    given = ("finetune", "--data", str(data), "--model", str(start), "--group-column", "pid")
    rare = {}
    for name, more in (("plain", ()), ("weighted", ("--class-weights", "balanced"))):
        model, found = tmp_path / name, tmp_path / f"{name}.jsonl"
        commands.main(*given, "--output", str(model), "--epochs", "1", *SLOWLY, *more)
        commands.main(
            "predict", "--model", str(model), "--input", str(data), "--output", str(found)
        )
        rows = [*map(json.loads, found.read_text().splitlines())]
        rare[name] = np.mean([x["probabilities"]["rare"] for x in rows])
        thresholds = json.loads((model / "config.json").read_text())["label_thresholds"]
        assert thresholds.keys() == {"often", "rare"}
        for x in rows:
            held = [k for k, p in x["probabilities"].items() if p >= thresholds[k] - 1e-6]
            assert x["labels"] == held
        results = json.loads((model / "results.json").read_text())
        assert results["thresholds"] == thresholds
        assert "one file is split 70/15/15 (seed 42), its 60 groups of 'pid' whole" in str(results)
    assert rare["weighted"] > rare["plain"] + 0.05
    with pytest.raises(InputError, match="exists; give another folder, or --overwrite"):
        commands.main(*given, "--output", str(model))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--learning-rate 3", "--learning-rate 3 is not between 0 and 1"),
        ("--epochs 0", "--epochs and --batch-size begin at 1, --patience at 0"),
        ("--data nowhere", "--data nowhere does not exist"),
        ("--label-column x", ": none is 'x', and x are needed"),
        ("--text-column Zebedee", "not 'Zebedee': correct --text-column"),
        ("--format prodigy", "own.jsonl has no span: there is nothing to learn"),
        ("--format doccano --label-column x", "--label-column is for tables, and"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(tmp_path, given, message) -> None:
    data = write_table(tmp_path / "own.jsonl", 40)
    arguments = ["--data", str(data), "--model", "m", "--output", str(tmp_path / "o")]
    with pytest.raises(InputError) as caught:
        commands.main("finetune", *arguments, *given.split())
    assert message in str(caught.value)
    assert "stroke" not in str(caught.value)
