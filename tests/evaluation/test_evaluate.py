# SPDX-License-Identifier: Apache-2.0
"""scripts/evaluate.py from data on disk to results.json, interruptions and bad input included."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from bcmb_jax import commands, device
from bcmb_jax.commands import evaluate
from bcmb_jax.commands.options.evaluate import parse
from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.device import products_in
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation import finetune_jax, load
from bcmb_jax.evaluation.encode import IGNORED, TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.protocol import Settings
from bcmb_jax.evaluation.tasks import TASKS
from conversion.export import write_huggingface
from tests.fixtures.canaries import NAMES, Scanner
from tests.fixtures.task_data import clinical_sentences
from tests.fixtures.tiny_weights import TINY, random_weights

ROOT = Path(__file__).resolve().parents[2]
GIVEN = ["--data", "d", "--model", "m", "--output", "o"]
FEW = ("--seeds", "1,2", "--epochs", "1", "--learning-rate", "1e-3,3e-3")
FIELDS = {"task", "model", "backend", "kind", "metric", "seeds", "per_seed", "median", "mean"}
FIELDS |= {"spread", "interval", "scores", "by_class", "confusion", "learning_rate", "grid"}
FIELDS |= {"epochs", "curves", "truncated", "dataset", "versions", "command", "seconds", "device"}


@pytest.fixture
def arguments(folder, tmp_path):
    """A task, its data (a step an epoch) and a model with random weights."""
    data = clinical_sentences(tmp_path / "data", "conll", train=16, held_out=8)
    listed = ["--labels", str(data / "labels.txt")]  # too few examples for unlisted ones
    return [*listed, "--task", "conll", "--data", str(data), "--model", str(folder)]


def results_of(output):
    return json.loads((output / "results.json").read_text())


def test_a_task_from_files_to_results(arguments, tmp_path, capsys):
    commands.main("evaluate", *arguments, *FEW, "--output", str(tmp_path / "out"))
    found = results_of(tmp_path / "out")
    assert found.keys() >= FIELDS
    assert found["seeds"] == [1, 2]
    assert found["grid"].keys() == {"0.001", "0.003"}
    assert found["metric"] == "f1"
    assert found["model"] == "huggingface"  # without the folders above it
    assert " --data data --model huggingface --seeds 1,2 " in found["command"]
    assert 0 <= found["median"] <= 1
    assert sorted(p.name for p in (tmp_path / "out" / "runs").iterdir()) == [
        f"{rate}-{seed}.json" for rate in ("0.001", "0.003") for seed in (1, 2)
    ]
    assert "conll f1: median" in capsys.readouterr().out


def test_words_alone_need_no_model(tmp_path):
    data = clinical_sentences(tmp_path / "data", "conll", train=100, held_out=20)
    task = ("--task", "conll", "--data", str(data), "--backend", "text")
    commands.main("evaluate", *task, "--output", str(tmp_path / "out"))
    found = results_of(tmp_path / "out")
    assert found["backend"] == "text"
    assert len(found["per_seed"]) == 5
    assert found["median"] > 0.9  # the made-up entities are words


def test_a_single_table_is_split_by_patient(tmp_path):
    rows = [f"{'cough' if i % 2 else 'rash'} again,{'xy'[i % 2]},p{i // 4}" for i in range(80)]
    (tmp_path / "notes.csv").write_text("\n".join(["sentence,label,patient", *rows]) + "\n")
    task = ["--task", "csv", "--data", str(tmp_path / "notes.csv"), "--backend", "text"]
    commands.main("evaluate", *task, "--group-column", "patient", "--output", str(tmp_path / "out"))
    data = results_of(tmp_path / "out")["dataset"]
    assert data["examples"] == {"train": 56, "validation": 12, "test": 12}
    assert "its 20 groups of 'patient' whole" in data["notes"][0]


def test_entities_that_training_lacks_lower_the_recall(tmp_path):
    data = clinical_sentences(tmp_path / "data", "conll", train=100, held_out=20)
    with (data / "test.tsv").open("a", encoding="utf-8") as file:
        file.write("\naspirin\tB-drug\n")
    task = ("--task", "conll", "--data", str(data), "--backend", "text", "--seeds", "1")
    commands.main("evaluate", *task, "--output", str(tmp_path / "out"))
    found = results_of(tmp_path / "out")
    assert {row["class"]: row["support"] for row in found["by_class"]}["drug"] == 1
    assert found["scores"][0]["recall"] < 1
    assert any("kinds that training lacks" in note for note in found["dataset"]["notes"])


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_without_repeating(arguments, tmp_path):
    commands.main("evaluate", *arguments, *FEW, "--output", str(tmp_path / "whole"))
    output = tmp_path / "cut"
    command = [sys.executable, "scripts/evaluate.py", *arguments, *FEW, "--output", str(output)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(output.glob("runs/*.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {file: file.stat().st_mtime_ns for file in output.glob("runs/*.json")}
    assert done
    assert not (output / "results.json").exists()
    commands.main("evaluate", *arguments, *FEW, "--output", str(output))
    assert all(file.stat().st_mtime_ns == then for file, then in done.items())
    cut, whole = results_of(output), results_of(tmp_path / "whole")
    assert cut["per_seed"] == whole["per_seed"]
    assert cut["grid"] == whole["grid"]


def test_a_kept_model_predicts_what_was_scored(arguments, tmp_path):
    output = tmp_path / "out"
    for file in (tmp_path / "data").glob("*.tsv"):
        file.write_text(file.read_text().replace("patient\t", f"{NAMES[0].split()[0]}\t"))
    few = ("--seeds", "1", "--epochs", "1", "--learning-rate", "1e-3", "--output", str(output))
    commands.main("evaluate", *arguments, *few, "--keep-models", "--license", "DUA 12")
    options = parse([*arguments, *few])
    options.model = str(output / "models" / "0.001-1")
    dataset = evaluate.read_task(TASKS[options.task], options)
    kept = evaluate.load(options, dataset, Settings())
    kept.classifier.reset(0)  # has nothing to draw
    found = kept.classifier.predict(kept.tokenizer.encode(dataset, dataset.splits["test"]))
    run = json.loads((output / "runs" / "0.001-1.json").read_text())
    assert [list(x) for x in found] == run["predicted"]
    card = (output / "models" / "0.001-1" / "README.md").read_text()
    assert "fine-tuned on conll (seed 1, learning rate 0.001)" in card
    for row in ("| random | ? | none needed |", "| conll (fine-tuning) | ? | DUA 12 |"):
        assert row in card
    ids = kept.tokenizer.encode(dataset, [Example("", (NAMES[0].split()[0],), (0,))])[0].tokens
    assert len(ids) > 4
    encode = load_tokenizer(str(output / "models" / "0.001-1")).encode_batch
    assert not Scanner(lambda text: encode([text])[0].tolist()).folder(output)


def test_results_of_another_setting_are_not_mixed(arguments, tmp_path):
    output = ("--output", str(tmp_path / "out"))
    short = ("--seeds", "1", "--learning-rate", "1e-3", *output)
    commands.main("evaluate", *arguments, "--epochs", "1", *short)
    with pytest.raises(InputError, match="is of epochs 1, this is 2; choose another --output"):
        commands.main("evaluate", *arguments, "--epochs", "2", *short)


@pytest.mark.slow
def test_what_is_cut_is_told(arguments, tmp_path, capsys):
    few = ("--seeds", "1", "--epochs", "1", "--output", str(tmp_path / "out"))
    commands.main("evaluate", *arguments, *few, "--max-length", "12")
    found = results_of(tmp_path / "out")
    assert 0 < found["truncated"]["train"] <= 16
    assert f"{found['truncated']['train']} of 16 train texts" in capsys.readouterr().err
    with pytest.raises(InputError, match="--max-length 9000 is more than the 128 tokens"):
        commands.main("evaluate", *arguments, *few, "--max-length", "9000")


@pytest.fixture
def reads_512(tmp_path) -> Path:
    """A model's folder."""
    config = dataclasses.replace(TINY, num_hidden_layers=1, max_position_embeddings=512)
    (tmp_path / "model").mkdir()
    write_huggingface(random_weights(config), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("protocol", ["published", "honest"])
def test_speed_of_our_encoder(reads_512, tmp_path, protocol, capsys):
    speed = ["--task", "speed", "--model", str(reads_512), "--documents", "6", "--iterations", "2"]
    commands.main("evaluate", *speed, "--protocol", protocol, "--output", str(tmp_path / "out"))
    found = results_of(tmp_path / "out")
    assert (found["protocol"], found["precision"]) == (protocol, "float32")
    layouts = [(line["set"], line["padded"]) for line in found["results"]]
    packed = [("short variable", False)] if protocol == "honest" else []
    assert layouts == [("short fixed", True), ("short variable", True), *packed]
    fixed, variable = found["results"][:2]
    assert fixed["tokens_per_second"] == fixed["nominal_tokens_per_second"]
    assert variable["nominal_tokens_per_second"] == pytest.approx(6 * 256 / variable["seconds"])
    assert variable["tokens_per_second"] != variable["nominal_tokens_per_second"]
    assert "medium fixed left out: the model reads 512 tokens" in capsys.readouterr().err


def test_a_model_that_reads_no_set_has_no_speed(folder, tmp_path):
    with pytest.raises(InputError, match="the model reads 128 tokens, the shortest set has 512"):
        commands.main(
            "evaluate", "--task", "speed", "--model", str(folder), "--output", str(tmp_path)
        )


def test_what_is_missing_is_asked_for():
    for arguments, message in (
        ([], "missing --data, --model, --output, --task"),
        (["--task", "speed", "--model", "m", "--output", "o", "--backend", "text"], "no speed"),
        (["--task", "csv", "--backend", "torch", "--precision", "bf16", *GIVEN], "fp32"),
        (["--task", "mlm", "--random-weights", *GIVEN], "for fine-tuning"),
        (["--task", "csv", "--epochs", "0", *GIVEN], "begin at 1"),
        (["--task", "speed", *GIVEN, "--protocol", "published", "--precision", "bf16"], "in fp32"),
        (["--task", "speed", *GIVEN, "--protocol", "published", "--precision", "tf32"], "in fp32"),
        (["--task", "mlm", "--backend", "torch", *GIVEN], "our"),
        (["--task", "conll", "--group-column", "p", *GIVEN], "--group-column is not for --task co"),
    ):
        with pytest.raises(InputError, match=message):
            parse(arguments)


@pytest.mark.parametrize(
    ("platform", "given", "expected"),
    [
        ("gpu", [], "tensorfloat32"),
        ("gpu", ["--precision", "fp32"], "float32"),
        ("gpu", ["--precision", "bf16"], "bfloat16"),
        ("cpu", [], "float32"),
        ("tpu", [], "float32"),
    ],
)
def test_fine_tuning_is_in_tf32_where_upstreams_is(
    arguments, monkeypatch, platform, given, expected
):
    for module in (device, load):
        monkeypatch.setattr(module, "target", lambda: device.Target(platform, platform))
    options = parse([*arguments, *given, "--output", "o"])
    dataset = evaluate.read_task(TASKS[options.task], options)
    assert evaluate.load(options, dataset, Settings()).metadata["precision"] == expected


@pytest.mark.slow
def test_a_step_of_fine_tuning_multiplies_in_the_precision_of_its_model(arguments, monkeypatch):
    monkeypatch.setattr(load, "resolve_precision", lambda precision: "tf32")
    monkeypatch.setattr(finetune_jax, "compute_dtype", lambda precision: np.dtype("float32"))
    options = parse([*arguments, "--output", "o"])
    dataset = evaluate.read_task(TASKS[options.task], options)
    model = evaluate.load(options, dataset, Settings())
    asked = []
    monkeypatch.setattr(finetune_jax, "products_in", lambda x: asked.append(x) or products_in(x))
    examples = model.tokenizer.encode(dataset, dataset.splits["test"])
    model.classifier.reset(0)
    model.classifier.step(examples, 1e-4)
    model.classifier.predict(examples)
    assert asked == ["tf32", "tf32"]


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return TaskTokenizer(str(tiny_tokenizer), 10)


def test_tags_are_at_the_first_token_of_each_word(tokenizer, tiny_tokenizer):
    words = ("the", "lung", "of", "extraordinarily", "long", "words", "and", "more", "of", "them")
    dataset = Dataset("tagging", ("B", "I", "O"), {})
    (e,) = tokenizer.encode(dataset, [Example("here", words, (2, 0, 2, 0, 1, 1, 2, 2, 2, 2))])
    assert e.cut
    assert len(e.tokens) == 10
    fitting = e.starts[e.starts >= 0]
    assert list(fitting) == sorted(fitting)
    assert fitting[0] == 1
    assert len(fitting) < 10
    assert e.targets[fitting].tolist() == [2, 0, 2, 0, 1, 1, 2, 2, 2, 2][: len(fitting)]
    assert (np.delete(e.targets, fitting) == IGNORED).all()
    whole = TaskTokenizer(str(tiny_tokenizer), 100).encode(
        dataset, [Example("h", words, (2,) * 10)]
    )
    assert tokenizer.count_tokens(words) == len(whole[0].tokens) - 2 > 10


def test_texts_begin_with_a_space_as_words_do(tokenizer):
    dataset = Dataset("single_label", ("no", "yes"), {})
    one, other = tokenizer.encode(
        dataset, [Example("here", "lung", (0,)), Example("here", " lung", (1,))]
    )
    tags = Dataset("tagging", ("O",), {})
    (word,) = tokenizer.encode(tags, [Example("here", ("lung",), (0,))])
    assert one.tokens.tolist() == other.tokens.tolist() == word.tokens.tolist()
    assert (one.targets, other.targets) == (0, 1)
    assert not one.cut


def test_a_kept_tokenizer_reads_texts_as_fine_tuning_did(tokenizer, tmp_path):
    texts = ("lung", " lung", "the left artery")
    examples = [Example("here", text, (0,)) for text in texts]
    trained_on = tokenizer.encode(Dataset("single_label", ("no",), {}), examples)
    tokenizer.write(tmp_path)
    kept = load_tokenizer(str(tmp_path))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text, example in zip(texts, trained_on, strict=True):
        assert kept.encode_marked([text])[0].tolist() == example.tokens.tolist()
        assert theirs(text)["input_ids"] == example.tokens.tolist()
    again = TaskTokenizer(str(tmp_path), 10)
    assert again.fingerprint == tokenizer.fingerprint


def test_a_mask_written_in_a_text_stays_text(tokenizer):
    (e,) = tokenizer.encode(Dataset("multi_label", ("a", "b"), {}), [Example("h", "[MASK]", (1,))])
    assert len(e.tokens) > 3
    assert e.targets.tolist() == [0.0, 1.0]


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    # Of a config alone transformers makes a tokenizer that knows no word.
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 30522}')
    with pytest.raises(InputError, match=f"{tmp_path} has no tokenizer: none of tokenizer.json"):
        TaskTokenizer(str(tmp_path), 10)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=f"{tmp_path}/tokenizer.json is not readable"):
        TaskTokenizer(str(tmp_path), 10)


def test_a_vocabulary_makes_a_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 7}')
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lung", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    dataset = Dataset("tagging", ("B", "O"), {})
    (e,) = TaskTokenizer(str(tmp_path), 10).encode(
        dataset, [Example("h", ("Lungs", "lung"), (0, 1))]
    )
    assert e.tokens.tolist() == [2, 5, 6, 5, 3]
    assert e.starts.tolist() == [1, 3]


def test_a_tokenizer_of_more_words_than_the_model_is_refused(arguments, tmp_path, tmp_path_factory):
    larger = tmp_path_factory.mktemp("larger") / "tokenizer"
    train_tokenizer(["the left lung is clear"], 301, larger)
    with pytest.raises(InputError, match="the tokenizer has 301 entries and the model 300"):
        commands.main(
            "evaluate", *arguments, "--tokenizer", str(larger), "--output", str(tmp_path / "o")
        )
