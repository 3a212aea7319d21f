# SPDX-License-Identifier: Apache-2.0
"""Results files are found, named by their models, and refused by file and key."""

import json

import pytest

from bcmb_jax import commands
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.results import read_results
from tests.fixtures.made_up_results import (
    fine_tuned,
    refused,
    save,
    speed,
)


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


def test_no_results(tmp_path):
    assert "no results.json in" in refused(tmp_path)
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_results([tmp_path / "nowhere"], {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"task": "bc5cdr",\n "model": }', "line 2, column 11: not JSON: Expecting value"),
        ("", "line 1, column 1: not JSON"),
        ("[1]", "its task is not a name"),
        ("{}", "its task is not a name"),
        ('{"task": "../../x"}', "its task is not a name"),
        ('{"task": "a\\u001b[31m"}', "its task is not a name"),
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
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_that_is_no_text_is_named(tmp_path):
    folder = save(tmp_path, {})
    (folder / "00" / "results.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"00/results.json cannot be read"):
        read_results([folder], {})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["median"], 81.2, "median is 81.2, not between 0 and 1"),
        (["median"], float("nan"), "median is nan, not between 0 and 1"),
        (["median"], "0.8", "median is text, not a number"),
        (["median"], True, "median is true or false, not a number"),
        (["per_seed"], [0.5], "1 scores of 5 seeds"),
        (["per_seed", 1], None, "per_seed[1] is nothing, not a number"),
        (["seeds"], [], "5 scores of 0 seeds"),
        (["interval"], [0.5], "interval has 1 ends"),
        (["scores", 0], 1, "scores[0] is a whole number, not an object"),
        (["curves", 2, 3, "epoch"], "1", "curves[2][3].epoch is text, not a whole number"),
        (["dataset"], {}, "dataset has no 'examples'"),
        (["confusion", "counts"], [[1]], "confusion.counts is not 3 by 3"),
        (["confusion", "counts"], [[1, 2, 3]] * 2, "confusion.counts is not 3 by 3"),
        (["model"], None, "model is nothing, not text"),
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
    assert "00/results.json" in twice
    assert "01/results.json" in twice
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
        commands.main("report", str(tmp_path), "--output", str(tmp_path / "out"), "--names", "z")
