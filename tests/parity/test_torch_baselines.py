# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of the benchmark is the same model and does the work that ours does."""

import dataclasses
import json
import math

import numpy as np
import pytest

from bcmb_jax import commands
from bcmb_jax.benchmark import timing, torch_baselines
from bcmb_jax.benchmark.timing import Setting
from bcmb_jax.benchmark.torch_baselines import TorchBaseline, fastest_baseline
from bcmb_jax.benchmark.training import MASK_RATE, labels
from bcmb_jax.commands.options.benchmark import SIZES
from bcmb_jax.data.rows import padded
from bcmb_jax.data.synthetic import prepare_synthetic
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.speed import lengths_of, random_documents
from bcmb_jax.model.heads import Head
from conversion.mapping import table
from tests.fixtures.task_data import clinical_sentences
from tests.fixtures.tiny_model import TINY

pytest.importorskip("torch", reason="needs the extra [torch]")
pytestmark = pytest.mark.torch

NO_DROPOUT = dataclasses.replace(TINY, vocab_size=50_368, attention_output_dropout=0.0)


def test_the_peer_has_our_sizes_and_no_dropout():
    head = Head("masked_lm")
    model = TorchBaseline(NO_DROPOUT, head, [], precision="fp32", candidate="sdpa").model
    ours = sum(math.prod(row.shape) for row in table(NO_DROPOUT))
    assert sum(p.numel() for p in model.parameters()) == ours
    rates = [m.p for m in model.modules() if type(m).__name__ == "Dropout"]
    assert not any(rates)


def test_the_peer_predicts_as_many_tokens_and_no_padding():
    batch = padded(random_documents(lengths_of("variable", 512, 64)), 512)
    wanted = labels(batch)
    tokens = batch.segment_ids > 0
    assert (wanted[~tokens] == -100).all()
    assert (wanted != -100).sum() / tokens.sum() == pytest.approx(MASK_RATE, rel=0.05)


def test_a_step_of_the_peer_trains_it():
    batch = padded(random_documents(np.array([30, 50])), 64)
    peer = TorchBaseline(
        NO_DROPOUT, Head("masked_lm"), [(batch, labels(batch))], precision="fp32", candidate="sdpa"
    )
    before = {name: p.detach().clone() for name, p in peer.model.named_parameters()}
    peer.step()
    assert not [n for n, p in peer.model.named_parameters() if (p == before[n]).all()]


def test_a_way_that_fails_is_told_and_left_out(monkeypatch, capsys):
    class Failing(TorchBaseline):
        def __init__(self, *arguments, candidate, **more):
            if candidate == "eager":
                raise RuntimeError("no kernel for this")
            super().__init__(*arguments, candidate=candidate, **more)

    monkeypatch.setattr(torch_baselines, "TorchBaseline", Failing)
    batch = padded(random_documents(np.array([30])), 64)

    def peer(*ways):
        batches = [(batch, None)] * 2
        setting = Setting("small", NO_DROPOUT, "fp32", "xla", ways, rounds=1, repeats=1)
        return fastest_baseline(setting, Head("encoder"), batches, train=False)

    found = peer("eager", "sdpa")
    assert [*found.run] == ["transformers sdpa"]
    assert found.competed == ["sdpa"]
    assert "eager left out: RuntimeError: no kernel for this" in capsys.readouterr().out
    with pytest.raises(InputError, match="none of these ways: eager, eager"):
        peer("eager", "eager")


@pytest.mark.parametrize("peers", ["compile", "sdpa,eager"])
def test_a_single_call_needs_a_single_way_that_does_not_compile(peers):
    common = ["training", "--size", "tiny", "--compare", "torch", "--burst", "0"]
    with pytest.raises(InputError, match="--burst 0 times the first call"):
        commands.main("benchmark", *common, "--peers", peers)


@pytest.mark.parametrize(
    "arguments",
    [
        ["inference", "--lengths", "64", "--documents", "4", "--peers", "sdpa,eager"],
        ["training", "--shapes", "2x64", "--precision", "bf16", "--peers", "sdpa+autocast"],
        ["training", "--data", "data", "--documents", "2", "--steps", "1", "--peers", "sdpa"],
        ["fine-tuning", "--task", "conll", "--data", "conll", "--steps", "1", "--peers", "sdpa"],
        ["fine-tuning", "--task", "csv", "--data", "csv", "--steps", "1", "--peers", "sdpa"],
        ["fine-tuning", "--task", "csv", "--data", "multi", "--steps", "1", "--peers", "sdpa"],
        ["attention", "--lengths", "512"],
    ],
    ids=lambda x: " ".join(x[:5]),
)
def test_beside_the_peer(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shards = prepare_synthetic(tmp_path / "data", vocab_size=512, notes=150)
    arguments = [str(shards) if x == "data" else x for x in arguments]
    common = ["--size", "tiny", "--compare", "torch"]
    if arguments[0] == "fine-tuning":
        task, folder = arguments[2], tmp_path / arguments[4]
        clinical_sentences(folder, task, train=30, held_out=4)
        if folder.name == "multi":  # several labels of one text
            with (folder / "train.csv").open("a") as file:
                file.write("a red rash and headache,rash;pain\n")
        common += ["--documents", "8", "--tokenizer", str(shards / "tokenizer")]
    small = dataclasses.replace(SIZES["tiny"], num_hidden_layers=2)
    monkeypatch.setitem(SIZES, "tiny", small)
    monkeypatch.setattr(timing, "SHAPES", ((512, 512, 512),))
    quick = ["--rounds", "1", "--burst", "1", "--output", "report.json"]
    commands.main("benchmark", *arguments, *common, *quick)
    lines = json.loads((tmp_path / "report.json").read_text())["results"]
    assert lines
    for line in lines:
        assert line["ratio"] == pytest.approx(line["peer_seconds"] / line["seconds"])
        way = line["peer"].split()[1]
        assert way in ("sdpa", "eager", "sdpa+autocast")
        assert way in line.get("peers", [way])
