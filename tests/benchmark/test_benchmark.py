# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures what it says: true tokens, in turns, with every fact beside the figures.
(That PyTorch's side does the same work is in tests/parity.)"""

import dataclasses
import json

import numpy as np
import pytest

from bcmb_jax import commands, device
from bcmb_jax.batch import Batch
from bcmb_jax.benchmark import inference, timing, training
from bcmb_jax.benchmark.report import result
from bcmb_jax.benchmark.timing import OURS, Setting, time_interleaved
from bcmb_jax.benchmark.torch_baselines import Baseline, choose_candidates
from bcmb_jax.commands.options.benchmark import SIZES
from bcmb_jax.data.rows import in_batches, packed, padded, trimmed
from bcmb_jax.device import Target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.speed import lengths_of, random_documents
from tests.fixtures.task_data import clinical_sentences


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
    assert abs(lengths.mean() - 64) < 10
    assert 16 <= lengths.min() < lengths.max() <= 128
    documents = random_documents(lengths)
    rectangle, rows = padded(documents, 128), packed(documents, 256)
    assert rectangle.tokens.shape == (40, 128)
    assert len(rows.tokens) < 13
    wanted = sorted(map(tuple, documents))
    assert documents_in(in_batches(rectangle, 384)) == wanted
    assert documents_in(in_batches(rows, 1024)) == wanted
    assert {x.tokens.shape for x in in_batches(rectangle, 384)} == {(3, 128)}  # one program
    short = [trimmed(x) for x in in_batches(rectangle, 384)]
    assert documents_in(short) == wanted
    assert all((x.segment_ids[:, -1] > 0).any() for x in short)


def test_sides_take_turns_and_the_first_call_of_a_turn_is_not_counted():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = time_interleaved(candidates, rounds=2, repeats=3)
    assert "".join(calls) == "aaaabbbb" * 2
    assert {name: len(x) for name, x in times.items()} == {"a": 6, "b": 6}
    calls.clear()
    times = time_interleaved(candidates, rounds=2, repeats=0)
    assert "".join(calls) == "abab"
    assert len(times["a"]) == 2


def test_a_ratio_is_of_medians_and_true_tokens_and_the_fastest_peer():
    times = {OURS: [2.0, 1.0, 9.0], "slow": [3.0, 6.0, 6.0], "torch": [4.0, 6.0, 5.0]}
    line = result("case", 100, times, flops=50.0, ceiling=100.0, filled=0.5)
    assert line["peer"] == "torch"
    assert line["tokens_per_second"] == 50
    assert line["peer_tokens_per_second"] == 20
    assert (line["ratio"], line["ratio_of_least"]) == (2.5, 4.0)
    assert line["share_of_matmul_ceiling"] == 0.25
    assert line["filled"] == 0.5


@pytest.fixture(autouse=True)
def tinier(monkeypatch):
    small = dataclasses.replace(SIZES["tiny"], num_hidden_layers=2, vocab_size=16_384)
    monkeypatch.setitem(SIZES, "tiny", small)
    monkeypatch.setattr(timing, "SHAPES", ((512, 512, 512),))


def run(tmp_path, *arguments):
    """The report of a run on a tiny model."""
    output = tmp_path / "report.json"
    quick = ["--rounds", "1", "--output", str(output)]
    quick += [] if arguments[0] == "loader" else ["--burst", "1"]
    commands.main("benchmark", *arguments, *quick)
    assert output.with_suffix(".png").stat().st_size > 1000
    report = json.loads(output.read_text())
    assert report["device"]["platform"] == "cpu"
    assert report["device"]["cores"] >= 1
    assert report["versions"].keys() >= {"python", "jax", "jaxlib"}
    assert report["command"].startswith("bcmb benchmark " + arguments[0])
    for line in report["results"]:
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])
        assert line["case"] in output.with_suffix(".md").read_text()
    return report["results"]


def test_inference(tmp_path, capsys):
    lines = run(tmp_path, "inference", "--size", "tiny", "--lengths", "128", "--documents", "30")
    assert [line["layout"] for line in lines] == ["padded", "padded", "packed"]
    assert lines[0]["tokens"] == 3840
    assert lines[1]["tokens"] == lines[2]["tokens"] < 3840
    assert lines[2]["filled"] > lines[1]["filled"]
    assert all(0 < line["share_of_matmul_ceiling"] < 1 for line in lines)
    assert [line["devices"] for line in lines] == [2, 2, 8]  # 30 documents; as many rows as needed
    table = (tmp_path / "report.md").read_text()
    assert f"| {lines[2]['case']}, 8 devices |" in table


@pytest.mark.slow
def test_rows_are_split_over_the_devices_that_divide_them():
    setting = Setting("tiny", SIZES["tiny"], "fp32", "xla", [], rounds=1, repeats=1)
    batch = padded(random_documents(np.full(4, 64)), 64)
    whole, cut = (inference.encoder(setting, batches) for batches in ([batch], [batch, one(batch)]))
    assert (whole.mesh.size, cut.mesh.size) == (4, 1)
    states = [encode()[0] for encode in (whole, cut)]
    assert [shard.data.shape for shard in states[0].addressable_shards] == [(1, 64, 128)] * 4
    np.testing.assert_allclose(*states, atol=1e-5)


def one(batch):
    return Batch(*(x[:1] for x in batch))


def test_training_on_random_rows_and_its_profile(tmp_path, capsys):
    trace = tmp_path / "trace"
    (line,) = run(
        tmp_path, "training", "--size", "tiny", "--shapes", "2x128", "--profile", str(trace)
    )
    assert line["devices"] == 2
    assert line["tokens"] == 256
    assert line["state_bytes"] > 3 * 4 * 2e6
    assert line["gradient"] > line["forward"] > 0
    table = capsys.readouterr().out
    assert "local_attention" in table
    assert "optimizer" in table
    assert "backward" in table


@pytest.mark.slow  # as the one on random rows, which runs always
def test_training_on_real_lengths_and_its_profile(tmp_path, shards, capsys):
    arguments = ["training", "--size", "tiny", "--data", str(shards), "--documents", "3"]
    trace = tmp_path / "trace"
    (line,) = run(tmp_path, *arguments, "--steps", "2", "--profile", str(trace))
    assert line["layout"] == "packed"
    assert line["documents"] == 6
    assert line["devices"] == 8
    assert line["attention"] == "xla"
    assert line["seconds_to_compile"] > 0
    assert "global_attention" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("task", [pytest.param("csv", marks=pytest.mark.slow), "conll"])
def test_fine_tuning(tmp_path, shards, task):
    folder = clinical_sentences(tmp_path / task, task, train=30, held_out=4)
    arguments = ["fine-tuning", "--size", "tiny", "--task", task, "--data", str(folder)]
    arguments += ["--tokenizer", str(shards / "tokenizer"), "--documents", "2"]
    (line,) = run(tmp_path, *arguments, "--steps", "2")
    assert line["documents"] == 4
    assert 0 < line["filled"] < 1
    assert 0 < line["peer_filled"] <= 1
    assert f"{task}, 2 steps of 2" in line["case"]
    with pytest.raises(InputError, match="32 examples are wanted, 30 are there"):
        run(tmp_path, *arguments, "--steps", "16")


def test_rows_of_real_lengths_are_as_long_as_asked_or_as_the_longest():
    documents = [np.zeros(n, np.int32) for n in (100, 700, 300, 300)]
    shapes = [training.pack(documents, most, 1).tokens.shape for most in (256, 1024, 8192)]
    assert shapes == [(2, 768), (2, 1024), (1, 1536)]
    assert training.pack(documents, 1024, 4).tokens.shape == (4, 1024)  # two empty


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("length", [512, 2048, 4096])
def test_packed_rows_are_no_more_than_asked_and_the_devices_divide_them(devices, length):
    documents = random_documents(lengths_of("variable", length, 16))
    batch = inference.pack(documents, length, devices)
    assert len(batch.tokens) <= devices
    (batch,) = in_batches(batch, batch.tokens.size, devices)
    assert len(batch.tokens) == devices
    assert documents_in([batch]) == sorted(map(tuple, documents))


def test_several_gpus_have_as_many_ceilings_and_no_peer_on_one(monkeypatch):
    monkeypatch.setattr(device, "target", lambda: Target("gpu", "H100"))
    times = {OURS: [1.0]}
    line = result("case", 1, times, flops=60.0, ceiling=100.0, devices=2)
    assert (line["share_of_matmul_ceiling"], line["devices"]) == (0.3, 2)
    for mode in ("inference", "training"):
        with pytest.raises(InputError, match="one of the 8 devices: show only one"):
            commands.main("benchmark", mode, "--compare", "torch", "--size", "tiny")


@pytest.mark.slow
def test_attention(tmp_path):
    lines = run(tmp_path, "attention", "--size", "tiny", "--lengths", "512", "--precision", "fp32")
    cases = {(line["layer"], line["direction"], line["documents"]) for line in lines}
    assert len(cases) == len(lines) == 8


def test_loader(tmp_path):
    arguments = ["loader", "--lengths", "512", "--documents", "400", "--directory", str(tmp_path)]
    (line,) = run(tmp_path, *arguments)
    assert line["rows_per_second"] > 0
    assert 0 <= line["share_of_a_step_waiting"] < 1
    assert 0.9 < line["filled"] <= 1


def test_more_documents_than_there_are_is_an_error(tmp_path, shards):
    with pytest.raises(InputError, match="4000 documents are wanted, "):
        run(tmp_path, "training", "--data", str(shards), "--documents", "1000")


def test_an_unknown_way_to_run_pytorch_is_an_error():
    with pytest.raises(InputError, match="no way to run 'fast' here; there are eager, sdpa"):
        choose_candidates("fast", ["eager", "sdpa"])


def test_what_a_mode_does_not_read_and_impossible_numbers_are_refused():
    for arguments, message in (
        (["loader", "--profile", "trace"], "there is no option --profile"),
        (["inference", "--rounds", "0"], "'0' is not a whole number from 1 on"),
        (["inference", "--burst", "-1"], "'-1' is not a whole number"),
        (["training", "--shapes", "4"], "'4' is not like 4x512,1x4096"),
        (["fine-tuning", "--task", "csv"], "required: --data, --tokenizer"),
    ):
        with pytest.raises(InputError, match=message):
            commands.main("benchmark", *arguments)


@pytest.mark.parametrize(
    "mode", [[], *([x] for x in ("inference", "training", "fine-tuning", "attention", "loader"))]
)
def test_help(mode, capsys):
    with pytest.raises(SystemExit) as stopped:
        commands.main("benchmark", *mode, "--help")
    assert stopped.value.code == 0
    assert "--" in capsys.readouterr().out


def test_a_case_that_fails_leaves_the_report_of_those_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inference, "fastest_baseline", no_memory_from(256))
    with pytest.raises(MemoryError):
        run(tmp_path, "inference", "--size", "tiny", "--kind", "fixed", "--lengths", "128,256")
    (line,) = json.loads((tmp_path / "report.json").read_text())["results"]
    assert line["length"] == 128


def no_memory_from(length):
    def peer(setting, kind, batches, *, train):
        if batches[0][0].tokens.shape[1] >= length:
            raise MemoryError
        return Baseline({}, [])

    return peer
