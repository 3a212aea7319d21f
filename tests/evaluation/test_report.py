# SPDX-License-Identifier: Apache-2.0
"""Results as the paper's tables: ours beside the published numbers, and bad files told apart."""

import json
import re

import numpy as np
import pytest

from bcmb_jax import commands
from bcmb_jax.evaluation import published
from bcmb_jax.evaluation.report import markdown, write
from bcmb_jax.evaluation.results import read_results
from tests.fixtures.made_up_results import (
    KINDS,
    everything,
    fine_tuned,
    save,
    speed,
)


def tables(text):
    """Section → its rows, as lists of cells."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        lines = [x for x in section.splitlines() if x.startswith("| ")]
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", x)[1:-1]] for x in lines]
        assert len({len(row) for row in rows}) <= 1, section
        found[section.partition("\n")[0]] = rows
    return found


def test_everything_is_in_its_table(tmp_path):
    results = save(tmp_path / "results", *everything())
    commands.main(
        "report", str(results), "--output", str(tmp_path / "out"), "--names", "runs/phase2=Ours"
    )
    found = tables((tmp_path / "out" / "tables.md").read_text())
    assert list(found) == [
        "Performance (Table 2)",
        "Runs",
        "Learning rates (Table 5)",
        "Datasets (Table 6)",
        "Inference speed (Table 3)",
        "Masked tokens",
        "Plots",
    ]
    head, _, *rows = found["Performance (Table 2)"]
    by_model = {row[0]: row for row in rows}
    assert head[1:] == ["ChemProt (weighted_f1)", "hoc_document (weighted_f1)", "bc5cdr (f1)"]
    ours = everything()[2]
    assert by_model["Ours"][1] == f"{100 * ours['median']:.1f} [77.0, 84.0]"
    assert by_model["*BioBERT, published*"][1:] == ["89.5", "–", "–"]
    assert by_model["BioBERT (torch)"][1:3] == ["–", "–"]
    assert by_model["*BioClinical ModernBERT large, phase 1, published*"][1] == "90.5"
    rates = {row[0]: row[1:] for row in found["Learning rates (Table 5)"]}
    assert rates["phase1"] == ["5e-05 (best of 2)", "5e-05", "5e-05"]
    assert rates["*base, published*"] == ["5e-05", "–", "–"]
    assert "TF-IDF + linear" not in rates
    data = found["Datasets (Table 6)"]
    expected = ["3", "18,764", "11,820", "16,253", "68.2", "67.7", "75.2"]
    assert data[2] == ["ChemProt", "random, phase1, Ours, TF-IDF + linear", *expected]
    expected = ["6", "19,460", "11,820", "16,943", "68.2", "67.7", "75.2"]
    assert data[3] == ["ChemProt", "*published*", *expected]
    speeds = found["Inference speed (Table 3)"]
    assert speeds[0][4:] == list(published.SPEED_SETS)
    assert [row[:3] for row in speeds[2:6]] == [
        ["Ours", "honest, padded", "1 x Xeon, 2 cores"],
        ["Ours", "honest, packed", "1 x Xeon, 2 cores"],
        ["BioBERT (torch)", "honest, padded", "1 x Xeon, 2 cores"],
        ["Ours", "published, padded", "1 x Xeon, 2 cores"],
    ]
    assert speeds[2][4] == "5.0"
    assert speeds[3][4:6] == ["–", "5.0"]
    assert float(speeds[5][5]) == pytest.approx(3.0 * 1.5, abs=0.05)
    assert found["Masked tokens"][2:] == [
        ["notes", "phase1", "1.5000", "60.0", "80.0", "12,345", "3.25"],
        ["notes", "Ours", "1.5000", "60.0", "80.0", "12,345", "3.25"],
        ["notes", "*unigram*", "6.0000", "60.0", "80.0", "12,345", "–"],
    ]
    assert "- ChemProt: train and test were rebuilt" in (tmp_path / "out/tables.md").read_text()
    pictures = {x.stem for x in (tmp_path / "out").glob("*.png")}
    curves = {f"curves-{task}" for task in KINDS}
    assert pictures == {"scores", "speed", "confusion-chemprot", *curves}
    data = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert len(data["ours"]) == len(everything())
    assert data["ours"][0]["label"] == "random"
    assert data["published"]["table2"]["Clinical BERT"]["deid"] == 74.2
    assert data["published"]["table6"]["deid"]["examples"] == [1703, 365, 366]


def test_published_numbers_are_the_papers():
    """Sums over columns of Tables 2 and 3 as printed, against a slip of a finger."""
    table2 = [[*x.values()] for x in published.SCORES.values() if x["phenotype"] is not None]
    assert np.sum(table2, axis=0) == pytest.approx([875.7, 442.6, 946.3, 553.6, 754.4])
    speeds = [[*x.values()] for x in published.SPEEDS.values()]
    short = np.sum([x[:2] for x in speeds], axis=0)
    medium = np.sum([x[2:4] for x in speeds if len(x) > 2], axis=0)
    long = np.sum([x[4:] for x in speeds if len(x) > 4], axis=0)
    assert [*short, *medium, *long] == pytest.approx([710.8, 456.9, 345.9, 272.5, 220.6, 210.1])


def test_one_seed_one_model_and_no_curves(tmp_path):
    values = fine_tuned("chemprot", "x") | {"seeds": [1], "per_seed": [0.5], "scores": []}
    for key in ("curves", "confusion", "grid", "learning_rate", "epochs", "truncated"):
        values[key] = None
    written = write(read_results([save(tmp_path / "in", values)], {}), tmp_path / "out")
    assert [x.name for x in written] == ["tables.md", "tables.json", "scores.png"]


def test_names_out_of_files_break_neither_tables_nor_plots(tmp_path):
    ugly = "$\\frac|a\nb\x1b[31m$ _" + "é" * 80
    values = fine_tuned("chemprot", ugly, labels=("$x$", "|", "_" * 70))
    values["dataset"]["notes"] = ["one\n\n# two | three"]
    fast = speed(ugly)
    results = read_results([save(tmp_path / "in", values, fast)], {})
    text = markdown(results)
    tables(text)
    assert "\x1b" not in text
    assert "\n# two" not in text
    assert len(write(results, tmp_path / "out")) == 6


@pytest.mark.slow
def test_many_models_and_labels_can_still_be_drawn(tmp_path):
    labels = [f"label {i}" for i in range(30)]
    models = [fine_tuned("chemprot", "many labels", labels=labels)]
    models += [fine_tuned("chemprot", f"model {i}") for i in range(8)]
    assert write(read_results([save(tmp_path / "in", *models)], {}), tmp_path / "out")


def test_classes_stand_by_how_often_they_are_true(tmp_path):
    results = []
    for model, scores in (("a", (0.5, 0.25)), ("b", (0.75, 1.0))):
        results.append(fine_tuned("bc5cdr", model))
        results[-1]["by_class"] = [
            {"class": name, "f1": f1, "support": count}
            for name, f1, count in zip(("Rare", "Common"), scores, (3, 1200), strict=True)
        ]
    commands.main(
        "report", str(save(tmp_path / "results", *results)), "--output", str(tmp_path / "out")
    )
    head, _, *rows = tables((tmp_path / "out" / "tables.md").read_text())["bc5cdr by class"]
    assert head == ["class", "true", "a", "b"]
    assert rows == [["Common", "1,200", "25.0", "100.0"], ["Rare", "3", "50.0", "75.0"]]
