# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures what it says: true tokens, in turns, with every fact beside the figures.
(That PyTorch's side does the same work is in tests/parity.)"""

import dataclasses
import json

import numpy as np
import pytest

from bcmb_jax.benchmark import loader, training
from bcmb_jax.benchmark.result import OURS, result
from bcmb_jax.benchmark.timing import race
from bcmb_jax.benchmark.torch_peer import ways_here
from bcmb_jax.data.rows import in_batches, packed, padded
from bcmb_jax.data.synthetic import prepare_synthetic
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.speed import lengths_of, random_documents
from scripts import benchmark


def documents_in(batches):
    found = []
    for batch in batches:
        for tokens, segments, positions in zip(*batch[:3], strict=True):
            for segment in range(1, segments.max() + 1):
                inside = segments == segment
                assert list(positions[inside]) == list(range(inside.sum()))
                found.append(tuple(tokens[inside]))
    return sorted(found)


def test_padded_and_packed_rows_hold_the_same_documents():
    lengths = lengths_of("variable", 128, 40)
    assert abs(lengths.mean() - 64) < 10 and 16 <= lengths.min() < lengths.max() <= 128
    documents = random_documents(lengths)
    rectangle, rows = padded(documents, 128), packed(documents, 256)
    assert rectangle.tokens.shape == (40, 128) and len(rows.tokens) < 13
    wanted = sorted(map(tuple, documents))
    assert documents_in(in_batches(rectangle, 384)) == wanted
    assert documents_in(in_batches(rows, 1024)) == wanted
    assert {x.tokens.shape for x in in_batches(rectangle, 384)} == {(3, 128)}  # one program


def test_sides_take_turns_and_the_first_call_of_a_turn_is_not_counted():
    calls = []
    sides = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = race(sides, rounds=2, burst=3)
    assert "".join(calls) == "aaaabbbb" * 2
    assert {name: len(x) for name, x in times.items()} == {"a": 6, "b": 6}
    calls.clear()
    times = race(sides, rounds=2, burst=0)
    assert "".join(calls) == "abab" and len(times["a"]) == 2


def test_a_ratio_is_of_medians_and_true_tokens():
    times = {OURS: [2.0, 1.0, 9.0], "torch": [4.0, 6.0, 5.0]}
    line = result("case", 100, times, flops=50.0, ceiling=100.0, filled=0.5)
    assert line["tokens_per_second"] == 50 and line["peer_tokens_per_second"] == 20
    assert (line["ratio"], line["ratio_of_least"]) == (2.5, 4.0)
    assert line["share_of_matmul_ceiling"] == 0.25 and line["filled"] == 0.5


@pytest.fixture(autouse=True)
def tinier(monkeypatch):
    small = dataclasses.replace(benchmark.SIZES["tiny"], num_hidden_layers=2, vocab_size=16_384)
    monkeypatch.setitem(benchmark.SIZES, "tiny", small)


def run(tmp_path, *arguments):
    """The report of a run on a tiny model."""
    output = tmp_path / "report.json"
    quick = ["--rounds", "1", "--burst", "1", "--output", str(output)]
    benchmark.main([*arguments, *quick])
    assert output.with_suffix(".png").stat().st_size > 1000
    report = json.loads(output.read_text())
    assert report["device"]["platform"] == "cpu" and report["device"]["cores"] >= 1
    assert report["versions"].keys() >= {"python", "jax", "jaxlib"}
    assert report["command"].startswith("python scripts/benchmark.py " + arguments[0])
    for line in report["results"]:
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])
        assert line["case"] in output.with_suffix(".md").read_text()
    return report["results"]


@pytest.fixture
def shards(tmp_path):
    return prepare_synthetic(tmp_path / "data", vocab_size=512, notes=150)


def test_inference(tmp_path, capsys):
    lines = run(tmp_path, "inference", "--size", "tiny", "--lengths", "128", "--documents", "6")
    assert [line["layout"] for line in lines] == ["padded", "padded", "packed"]
    assert lines[0]["tokens"] == 768 and lines[1]["tokens"] == lines[2]["tokens"] < 768
    assert lines[2]["filled"] > lines[1]["filled"]
    assert all(0 < line["share_of_matmul_ceiling"] < 1 for line in lines)


def test_training_on_random_rows_and_its_profile(tmp_path, capsys):
    trace = tmp_path / "trace"
    (line,) = run(
        tmp_path, "training", "--size", "tiny", "--shapes", "2x128", "--profile", str(trace)
    )
    assert line["tokens"] == 256 and line["state_bytes"] > 3 * 4 * 2e6
    assert line["gradient"] > line["forward"] > 0
    table = capsys.readouterr().out
    assert "local_attention" in table and "optimizer" in table and "backward" in table


@pytest.mark.parametrize("head", ["sequence_classification", "token_classification"])
def test_fine_tuning_on_real_lengths(tmp_path, shards, head):
    arguments = ["training", "--size", "tiny", "--data", str(shards), "--head", head]
    (line,) = run(tmp_path, *arguments, "--documents", "2", "--steps", "2")
    assert line["layout"] == "packed" and line["documents"] == 4
    assert line["attention"] == "xla" and line["seconds_to_compile"] > 0


def test_rows_of_real_lengths_are_as_long_as_asked_or_as_the_longest():
    documents = [np.zeros(n, np.int32) for n in (100, 700, 300, 300)]
    shapes = [training.pack(documents, most).tokens.shape for most in (256, 1024, 8192)]
    assert shapes == [(2, 768), (2, 1024), (1, 1536)]


def test_attention(tmp_path):
    lines = run(tmp_path, "attention", "--size", "tiny", "--lengths", "512", "--precision", "fp32")
    cases = {(line["layer"], line["direction"], line["documents"]) for line in lines}
    assert len(cases) == len(lines) == 8


def test_loader(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "MADE_UP_TOKENS", 300_000)
    (line,) = run(tmp_path, "loader", "--lengths", "512", "--directory", str(tmp_path))
    assert line["rows_per_second"] > 0 and 0 <= line["share_of_a_step_waiting"] < 1
    assert 0.9 < line["filled"] <= 1


def test_more_documents_than_there_are_is_an_error(tmp_path, shards):
    with pytest.raises(InputError, match="4000 documents are wanted, "):
        run(tmp_path, "training", "--data", str(shards), "--documents", "1000")


def test_an_unknown_way_to_run_pytorch_is_an_error():
    pytest.importorskip("torch")
    with pytest.raises(InputError, match="no way to run 'fast' here; there are eager, sdpa"):
        ways_here("fast")
