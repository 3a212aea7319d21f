# SPDX-License-Identifier: Apache-2.0
"""Results as the paper's tables: ours beside the published numbers, and bad files told apart."""

import json
import re

import numpy as np
import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation import published
from bcmb_jax.evaluation.examples import SPLITS
from bcmb_jax.evaluation.report import markdown, write
from bcmb_jax.evaluation.results import read_results
from scripts.report import main

SEEDS = [42, 43, 44, 45, 46]
KINDS = {"chemprot": "single_label", "hoc_document": "multi_label", "bc5cdr": "tagging"}
SPEED_LENGTHS = {"short": 512, "medium": 4096, "long": 8192}


def fine_tuned(task, model, *, score=0.8, backend="jax", labels=("no", "yes", "maybe"), seed=0):
    """Made-up results as scripts/evaluate.py writes them."""
    random = np.random.default_rng(seed)
    per_seed = (score + 0.02 * random.random(5)).tolist()
    kind, metric = KINDS[task], "f1" if KINDS[task] == "tagging" else "weighted_f1"
    curves = [
        [
            {
                "epoch": e,
                "train_loss": (3 - 2 * x) / e,
                "validation": x * (1 - 0.3 / e),
            }
            for e in range(1, 6)
        ]
        for x in per_seed
    ]
    trained = backend != "text"
    return {
        "task": task,
        "model": model,
        "backend": backend,
        "kind": kind,
        "metric": metric,
        "seeds": SEEDS,
        "per_seed": per_seed,
        "median": float(np.median(per_seed)),
        "mean": float(np.mean(per_seed)),
        "spread": float(np.std(per_seed)),
        "interval": [score - 0.03, score + 0.04],
        "scores": [{metric: x, "micro_f1": x} for x in per_seed],
        "by_class": [],
        "confusion": {
            "labels": list(labels),
            "counts": (
                random.integers(0, 40, (len(labels),) * 2) + 60 * np.eye(len(labels), dtype=int)
            ).tolist(),
        },
        "learning_rate": 5e-5 if trained else 0.0,
        "grid": {"2e-05": 0.7, "5e-05": 0.8} if trained and task == "chemprot" else None,
        "curves": curves if trained else [[]] * 5,
        "dataset": {
            "examples": dict(zip(SPLITS, (18764, 11820, 16253), strict=True)),
            "labels": len(labels),
            "mean_tokens": dict(
                zip(SPLITS, (68.2, 67.7, 75.2) if trained else (40.0,) * 3, strict=True)
            ),
            "notes": ["train and test were rebuilt"] if task == "chemprot" else [],
        },
    } | ({"epochs": 10, "truncated": {"train": 3, "validation": 0, "test": 1}} if trained else {})


def speed(model, *, backend="jax", protocol="honest", rate=5000.0):
    rows = []
    for name, length in SPEED_LENGTHS.items():
        for variable in (False, True):
            for padded in (True, False) if variable and backend == "jax" else (True,):
                true = (
                    rate
                    * (length / 512) ** -0.2
                    * (1.2 if protocol == "published" else 1)
                    * (0.5 if variable and padded else 1)
                )
                rows.append(
                    {
                        "set": f"{name} {'variable' if variable else 'fixed'}",
                        "length": length,
                        "documents": 64,
                        "nominal_tokens_per_second": true * 1.5,
                        "tokens_per_second": true,
                        "batch_size": 8,
                        "padded": padded,
                    }
                )
    return {
        "task": "speed",
        "model": model,
        "backend": backend,
        "protocol": protocol,
        "device": {"platform": "cpu", "kind": "Xeon", "count": 1, "cores": 2},
        "results": rows,
    }


def mlm(model, loss=1.5):
    def scored(loss):
        return {
            "loss": loss,
            "masked_accuracy": 0.6,
            "top5_accuracy": 0.8,
            "predicted_tokens": 12345,
        }

    return {
        "task": "mlm",
        "model": model,
        "backend": "jax",
        "sources": {"notes": {"model": scored(loss), "unigram": scored(6.0)}},
        "pseudo_perplexity": {"notes": 3.25},
    }


def everything():
    found = []
    for task in KINDS:
        for i, model in enumerate(("runs/random", "runs/phase1", "runs/phase2")):
            found.append(fine_tuned(task, model, score=0.6 + 0.1 * i, seed=i))
        found.append(fine_tuned(task, "TF-IDF + linear", score=0.55, backend="text"))
    found.append(fine_tuned("bc5cdr", "hub/BioBERT", backend="torch"))
    found += [speed("runs/phase2"), speed("hub/BioBERT", backend="torch", rate=2000.0)]
    found += [speed("runs/phase2", protocol="published"), mlm("runs/phase1"), mlm("runs/phase2")]
    return found


def save(folder, *results):
    for i, values in enumerate(results):
        file = folder / f"{i:02}" / "results.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    return folder


def refused(tmp_path, *results, names=()):
    with pytest.raises(InputError) as caught:
        read_results([save(tmp_path, *results)], dict(names))
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    main([str(results), "--output", str(tmp_path / "out"), "--names", "runs/phase2=Ours"])
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
    assert speeds[2][4] == "5.0" and speeds[3][4:6] == ["–", "5.0"]
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
    table2 = [x.scores for x in published.MODELS if x.scores[1] is not None]
    assert np.sum(table2, axis=0) == pytest.approx([875.7, 442.6, 946.3, 553.6, 754.4])
    short = np.sum([x.speed[:2] for x in published.MODELS if x.speed], axis=0)
    medium = np.sum([x.speed[2:4] for x in published.MODELS if len(x.speed) > 2], axis=0)
    long = np.sum([x.speed[4:] for x in published.MODELS if len(x.speed) > 4], axis=0)
    assert [*short, *medium, *long] == pytest.approx([710.8, 456.9, 345.9, 272.5, 220.6, 210.1])


def test_models_are_called_by_as_little_of_their_path_as_tells_them_apart(tmp_path):
    models = ["a/phase1/hf", "a/phase2/hf/", "b/phase2/hf", "hub/BioBERT", "hf"]
    folder = save(tmp_path, *(fine_tuned("bc5cdr", model) for model in models))
    found = [x.label for x in read_results([folder], {})]
    assert found == ["phase1/hf", "a/phase2/hf", "b/phase2/hf", "BioBERT", "hf"]
    named = read_results([folder], {"a/phase2/hf": "Ours", "hf": "Theirs"})
    assert [x.label for x in named][1::3] == ["Ours", "Theirs"]


def test_a_file_in_two_arguments_is_one_result(tmp_path):
    folder = save(tmp_path, fine_tuned("bc5cdr", "x"))
    again = folder / "00" / ".." / "00" / "results.json"
    assert len(read_results([folder, folder / "00", again], {})) == 1


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
    assert "\x1b" not in text and "\n# two" not in text
    assert len(write(results, tmp_path / "out")) == 6


def test_many_models_and_labels_can_still_be_drawn(tmp_path):
    labels = [f"label {i}" for i in range(30)]
    models = [fine_tuned("chemprot", f"model {i}", labels=labels) for i in range(9)]
    assert write(read_results([save(tmp_path / "in", *models)], {}), tmp_path / "out")


def test_no_results(tmp_path):
    assert "no results.json in" in refused(tmp_path)
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_results([tmp_path / "nowhere"], {})


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"task": "bc5cdr",\n "model": }', "line 2, column 11: not JSON: Expecting value"),
        ("", "line 1, column 1: not JSON"),
        ("[1]", "its task is None"),
        ("{}", "its task is None"),
        ('{"task": "../../x"}', "its task is '../../x'"),
        ('{"task": "a\\u001b[31m"}', "its task is 'a\\x1b[31m'"),
        ('{"task": "bc5cdr"}', "the file has no 'model'"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_malformed_files_are_named(text, message, tmp_path):
    folder = save(tmp_path, fine_tuned("bc5cdr", "x"), {})
    (folder / "01" / "results.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_results([folder], {})
    assert str(folder / "01" / "results.json") in str(caught.value)
    assert message in str(caught.value) and str(caught.value).isprintable()


def test_a_file_that_is_no_text_is_named(tmp_path):
    folder = save(tmp_path, {})
    (folder / "00" / "results.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="00/results.json cannot be read"):
        read_results([folder], {})


@pytest.mark.parametrize(
    "path, value, message",
    [
        (["median"], 81.2, "median is 81.2, not between 0 and 1"),
        (["median"], float("nan"), "median is nan, not between 0 and 1"),
        (["median"], "0.8", "median is '0.8', not a number"),
        (["median"], True, "median is True, not a number"),
        (["per_seed"], [0.5], "1 scores of 5 seeds"),
        (["per_seed", 1], None, "per_seed[1] is None, not a number"),
        (["seeds"], [], "5 scores of 0 seeds"),
        (["interval"], [0.5], "interval has 1 ends"),
        (["scores", 0], 1, "scores[0] is 1, not an object"),
        (["curves", 2, 3, "epoch"], "1", "curves[2][3].epoch is '1', not a whole number"),
        (["dataset"], {}, "dataset has no 'examples'"),
        (["confusion", "counts"], [[1]], "confusion.counts is not 3 by 3"),
        (["confusion", "counts"], [[1, 2, 3]] * 2, "confusion.counts is not 3 by 3"),
        (["model"], None, "model is None, not text"),
    ],
)
def test_wrong_values_are_named(path, value, message, tmp_path):
    values = json.loads(json.dumps(fine_tuned("chemprot", "x")))
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert message in refused(tmp_path, values)


def test_wrong_speeds_are_named(tmp_path):
    values = speed("x")
    del values["results"][3]["padded"]
    assert "results[3] has no 'padded'" in refused(tmp_path, values)


def test_two_results_of_one_thing_are_refused(tmp_path):
    twice = refused(tmp_path / "a", fine_tuned("bc5cdr", "x"), fine_tuned("bc5cdr", "x/"))
    assert "00/results.json" in twice and "01/results.json" in twice
    assert "both of bc5cdr and x" in twice
    named = [fine_tuned("bc5cdr", "x"), fine_tuned("bc5cdr", "y")]
    assert "both of" in refused(tmp_path / "b", *named, names={"x": "same", "y": "same"}.items())
    assert "both of speed" in refused(tmp_path / "c", speed("x"), speed("x"))
    other = [fine_tuned("bc5cdr", "x"), fine_tuned("bc5cdr", "x", backend="torch")]
    assert len(read_results([save(tmp_path / "d", *other)], {})) == 2


def test_names_of_no_model_are_refused(tmp_path):
    message = refused(tmp_path, fine_tuned("bc5cdr", "x"), names={"z": "Ours"}.items())
    assert message == "--names z: no result is of it, but of x"
    with pytest.raises(InputError, match="--names z: give MODEL=LABEL"):
        main([str(tmp_path), "--output", str(tmp_path / "out"), "--names", "z"])


def test_classes_stand_by_how_often_they_are_true(tmp_path):
    results = []
    for model, scores in (("a", (0.5, 0.25)), ("b", (0.75, 1.0))):
        results.append(fine_tuned("bc5cdr", model))
        results[-1]["by_class"] = [
            {"class": name, "f1": f1, "support": count}
            for name, f1, count in zip(("Rare", "Common"), scores, (3, 1200), strict=True)
        ]
    main([str(save(tmp_path / "results", *results)), "--output", str(tmp_path / "out")])
    head, _, *rows = tables((tmp_path / "out" / "tables.md").read_text())["bc5cdr by class"]
    assert head == ["class", "true", "a", "b"]
    assert rows == [["Common", "1,200", "25.0", "100.0"], ["Rare", "3", "50.0", "75.0"]]
