# SPDX-License-Identifier: Apache-2.0
"""Models to call: weights from folders and runs, the heads, and what a call refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import conversion
from bcmb_jax import device
from bcmb_jax.errors import InputError
from bcmb_jax.model.heads import Head
from bcmb_jax.ops import cpu
from bcmb_jax.optimizer import stable_adamw
from bcmb_jax.training.checkpoint import RunProgress, TrainState
from bcmb_jax.training.kept import Checkpoints
from conversion import pretrained
from conversion.export import write_huggingface
from conversion.weights import read
from tests.fixtures.tiny_weights import IDS, TINY, random_weights, same_bits


@pytest.fixture
def folder(folder) -> Path:
    """A Hugging Face folder whose weights a test may change: no manifest holds their digest."""
    (folder / "manifest.json").unlink()
    return folder


def test_half_precision_and_shards_are_read(folder) -> None:
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves: tuple[dict, dict] = ({}, {})
    for number, (name, x) in enumerate(stored.items()):
        kind = (ml_dtypes.bfloat16, np.float16, np.float32)[number % 3]
        halves[number % 2][name] = stored[name] = x.astype(kind)
    names = {}
    for number, half in enumerate(halves):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file(half, folder / file)
        names |= dict.fromkeys(half, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    params = read(folder).params
    assert all(x.dtype == np.float32 for x in params.values())
    wanted = {name: x.astype(np.float32) for name, x in stored.items()}
    assert same_bits(params, {name: wanted[name] for name in params})
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model-00002-of-00002.safetensors"):
        read(folder)


def test_a_tied_decoder_may_be_written_out_but_not_differ(folder) -> None:
    stored = load_file(folder / "model.safetensors")
    before = read(folder).params
    stored["decoder.weight"] = stored["model.embeddings.tok_embeddings.weight"].copy()
    save_file(stored, folder / "model.safetensors")
    assert same_bits(read(folder).params, before)
    stored["decoder.weight"][0, 0] += 1
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(InputError, match="tied"):
        read(folder)


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_encoders_alone(folder, prefix) -> None:
    whole = conversion.from_pretrained(folder, "encoder", precision="fp32")
    stored = load_file(folder / "model.safetensors")
    encoder = {
        prefix + name.removeprefix("model."): x
        for name, x in stored.items()
        if name.startswith("model.")
    }
    save_file(encoder, folder / "model.safetensors")
    alone = conversion.from_pretrained(folder, "encoder", precision="fp32")
    tokens = np.arange(20).reshape(2, 10)
    assert alone(tokens).shape == (2, 10, 16)
    np.testing.assert_array_equal(alone(tokens), whole(tokens))
    with pytest.raises(InputError, match="has no masked-LM head"):
        conversion.from_pretrained(folder)


def test_damaged_and_missing_models_are_one_line(folder, tmp_path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    (tmp_path / "empty").mkdir()
    for path in (folder, tmp_path / "empty", tmp_path / "nowhere", "some/model"):
        with pytest.raises(InputError) as error:
            conversion.from_pretrained(path)
        assert "\n" not in str(error.value)


def test_a_run_starts_from_its_own_checkpoints_with_moments(tmp_path, tiny_tokenizer) -> None:
    weights = random_weights()
    state = TrainState(weights.params, stable_adamw(max_lr=0.5).init(weights.params))
    moments = jax.tree.map(lambda x: x + 1, state.opt_state)
    run = tmp_path / "run"
    checkpoints = Checkpoints(run / "checkpoints", 2)
    facts = {"config": {"model": TINY.as_dict()}, "tokenizer": {"special": IDS}}
    for step in (3, 12):
        params = {name: jnp.asarray(x * step) for name, x in weights.params.items()}
        checkpoints.save(TrainState(params, moments), RunProgress(step=step), facts)
    checkpoints.close()
    (run / "config.json").write_text("{}")
    write_huggingface(weights._replace(tokenizer=tiny_tokenizer), make(run / "tokenizer"))

    initial = conversion.load_initial(run)
    assert same_bits(initial.params, {n: x * np.float32(12) for n, x in weights.params.items()})
    assert initial.opt_state._fields == moments._fields
    assert initial.opt_state.step == 1
    assert initial.opt_state.max_lr == 1.5
    assert same_bits(initial.opt_state.exp_avg, moments.exp_avg)
    model = conversion.from_pretrained(run / "checkpoints" / "3")
    assert model.config == TINY
    assert model.tokenizer_directory == (run / "tokenizer").resolve()
    assert same_bits(model.params, {n: x * np.float32(3) for n, x in weights.params.items()})


def remove_metadata(newest: Path) -> None:
    shutil.rmtree(newest / "meta")


def remove_arrays(newest: Path) -> None:
    shutil.rmtree(newest / "state")


def truncate_arrays(newest: Path) -> None:
    for file in (newest / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty_it(newest: Path) -> None:
    shutil.rmtree(newest)
    newest.mkdir()


@pytest.mark.parametrize("damage", [remove_metadata, remove_arrays, truncate_arrays, empty_it])
def test_reading_steps_back_over_an_incomplete_checkpoint(tmp_path, caplog, damage) -> None:
    weights = random_weights()
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 3)
    facts = {"config": {"model": TINY.as_dict()}, "tokenizer": {"special": IDS}}
    for step in (3, 12, 100):
        params = {name: jnp.asarray(x * step) for name, x in weights.params.items()}
        state = TrainState(params, stable_adamw(max_lr=0.5).init(params))
        checkpoints.save(state, RunProgress(step=step), facts)
    checkpoints.close()
    folder = tmp_path / "run" / "checkpoints"
    damage(folder / "100")
    for path in (tmp_path / "run", folder):
        caplog.clear()
        found = read(path)
        assert Path(found.origin).name == "12"
        assert same_bits(found.params, {n: x * np.float32(12) for n, x in weights.params.items()})
        assert f"{folder.resolve() / '100'} cannot be read" in caplog.text
        assert "reading the one before, of step 12" in caplog.text
    assert (folder / "100").is_dir()  # reading moves nothing aside
    with pytest.raises(InputError):  # asked for by name, nothing else will do
        read(folder / "100")
    for step in (3, 12):
        damage(folder / str(step))
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "run")


def make(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_calls_fill_in_segments_and_positions(folder) -> None:
    model = conversion.from_pretrained(folder, precision="fp32")
    tokens = np.random.default_rng(1).integers(0, 300, (1, 12))
    packed = np.array([[1] * 5 + [2] * 6 + [0]])
    logits = model(tokens, packed)
    assert logits.shape == (1, 12, 300)
    assert logits.dtype == jnp.float32
    # The same kernels on other lengths: their sums may be ordered otherwise.
    np.testing.assert_allclose(logits[:, 5:11], model(tokens[:, 5:11]), atol=1e-5)
    restarted = np.array([[*range(5), *range(6), 0]])
    np.testing.assert_array_equal(logits, model(tokens, packed, restarted))
    assert np.abs(logits - model(tokens, packed, restarted + np.arange(12))).max() > 1e-3


@pytest.mark.parametrize(
    ("tokens", "segment_ids", "message"),
    [
        (np.array([[1, 300]]), None, "from 1 to 300"),
        ([[1, 300]], None, "from 1 to 300"),
        (((-1, 2),), None, "from -1 to 2"),
        (jnp.array([[1, 300]]), None, "from 1 to 300"),
        (np.array([[1, 2**40]]), None, f"from 1 to {2**40}"),
        (np.array([[1.0, 2.0]]), None, "tokens are float64; they must be whole numbers"),
        ([["1", "2"]], None, "whole numbers"),
        ([[1, 2], [3]], None, "one length"),
        (np.array([[-1, 3]]), None, "from -1 to 3"),
        (np.array([1, 2]), None, "one shape"),
        (np.array([[1, 2]]), np.array([[1]]), "one shape"),
    ],
)
def test_calls_refuse_what_does_not_fit(folder, tokens, segment_ids, message) -> None:
    with pytest.raises(InputError, match=message):
        conversion.from_pretrained(folder)(tokens, segment_ids)


def test_new_classifiers_keep_encoder_and_head(folder, caplog) -> None:
    tokens = np.random.default_rng(1).integers(0, 300, (2, 12))
    segments = np.array([[1] * 5 + [2] * 6 + [0], [1] * 12])
    for kind, shape in (
        ("token_classification", (2, 12, 4)),
        ("sequence_classification", (2, 2, 4)),
    ):
        model = conversion.from_pretrained(folder, kind, num_labels=4, precision="fp32")
        out = model(tokens, segments, **({"num_segments": 2} if "seq" in kind else {}))
        assert out.shape == shape
        assert out.dtype == jnp.float32
        assert "new, not trained yet: classifier.bias, classifier.weight" in caplog.text
        before = read(folder).params
        assert all(
            same_bits({n: x}, {n: before[n]}) for n, x in model.params.items() if n[0] != "c"
        )
        std = float(jnp.std(model.params["classifier.weight"]))
        assert 0.1 < std < 0.3  # 0.88 of hidden_size ** -0.5


@pytest.mark.parametrize("pooling", [pytest.param("cls", marks=pytest.mark.slow), "mean"])
def test_each_document_of_a_row_is_pooled_alone(pooling) -> None:
    head = Head("sequence_classification", ("no", "yes"), pooling)
    model = conversion.PretrainedModel(random_weights(head=head), jnp.dtype("float32"))
    tokens = np.random.default_rng(2).integers(0, 300, (1, 12))
    packed = model(tokens, np.array([[1] * 5 + [2] * 6 + [0]]), num_segments=3)
    np.testing.assert_allclose(packed[:, 0], model(tokens[:, :5])[:, 0], atol=1e-5)
    np.testing.assert_allclose(packed[:, 1], model(tokens[:, 5:11])[:, 0], atol=1e-5)
    assert np.abs(packed[0, 0] - packed[0, 1]).max() > 1e-2
    assert np.isfinite(packed).all()
    other = random_weights(
        head=dataclasses.replace(head, pooling={"cls": "mean"}.get(pooling, "cls"))
    )
    assert (
        np.abs(
            conversion.PretrainedModel(other, jnp.dtype("float32"))(tokens) - model(tokens)
        ).max()
        > 1e-3
    )


def test_heads_that_cannot_be_had(folder) -> None:
    for head, labels, message in (
        ("question_answering", 2, "'question_answering' is not one of masked_lm, encoder"),
        ("token_classification", None, "give num_labels for a new one"),
    ):
        with pytest.raises(InputError, match=message):
            conversion.from_pretrained(folder, head, num_labels=labels)
    classifier = conversion.from_pretrained(folder, "token_classification", num_labels=3)
    conversion.save_pretrained(classifier, folder.parent / "ner")
    with pytest.raises(InputError, match="has 3 labels, not 5"):
        conversion.from_pretrained(folder.parent / "ner", "token_classification", num_labels=5)
    with pytest.raises(InputError, match="no masked-LM head"):
        conversion.load_initial(folder.parent / "ner")


@pytest.mark.parametrize(
    ("head", "labels"), [("masked_lm", None), ("encoder", None), ("token_classification", 4)]
)
def test_outputs_do_not_depend_on_the_instructions_of_a_cpu(
    folder, head, labels, monkeypatch
) -> None:
    tokens = np.random.default_rng(3).integers(0, 300, (3, 24))
    outputs = []
    for instructions in (True, False):
        for module in (device, cpu):
            monkeypatch.setattr(module, "cpu_multiplies_bf16", lambda found=instructions: found)
        jax.clear_caches()  # the flag is not part of what a traced function is found by
        model = conversion.from_pretrained(folder, head, num_labels=labels)
        if labels:  # new, from random numbers
            model.params["classifier.weight"] = jnp.full((4, 16), 0.1)
        outputs.append(np.asarray(model(tokens)))
    assert model.precision == "fp32"
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=0, atol=2e-5)


def test_bf16_is_suggested_once_where_it_is_faster(folder, monkeypatch, caplog) -> None:
    monkeypatch.setattr(pretrained, "target", lambda: device.Target("gpu", "NVIDIA H200"))
    pretrained._suggest_bf16.cache_clear()
    for precision in ("", "fp32", "", "bf16"):
        conversion.from_pretrained(folder, precision=precision)
    said = [x.getMessage() for x in caplog.records if "bf16" in x.getMessage()]
    assert said == ['models compute in fp32; precision="bf16" is faster on a NVIDIA H200']


def as_torch(ids):
    return pytest.importorskip("torch").tensor(ids)


@pytest.mark.parametrize("hold", [list, np.array, jnp.array, as_torch, np.int64, np.uint16])
@pytest.mark.parametrize(("ids", "reach"), [([0, 7, 300], "0 to 300"), ([299, 65535], "to 65535")])
def test_ids_out_of_the_vocabulary_are_refused_whatever_holds_them(
    folder, hold, ids, reach
) -> None:
    model = conversion.from_pretrained(folder)
    with pytest.raises(InputError, match=f"{reach}; the model has 300"):
        model(hold([ids]))
    assert model(hold([[0, 299]])).shape == (1, 2, 300)


@pytest.mark.parametrize("hold", [list, np.array, jnp.array, as_torch])
def test_negative_and_fractional_ids_are_refused(folder, hold) -> None:
    model = conversion.from_pretrained(folder)
    with pytest.raises(InputError, match="tokens reach from -1 to 5; the model has 300"):
        model(hold([[-1, 5]]))
    with pytest.raises(InputError, match=r"tokens are float\d\d; they must be whole numbers"):
        model(hold([[1.5, 5.0]]))


def test_ids_beyond_int32_do_not_wrap_into_the_vocabulary(folder) -> None:
    model = conversion.from_pretrained(folder)
    for hold in (list, np.array, as_torch):
        with pytest.raises(InputError, match=f"to {2**32 + 5}; the model has 300"):
            model(hold([[1, 2**32 + 5]]))


def test_a_traced_call_computes_what_a_plain_one_does(folder) -> None:
    model = conversion.from_pretrained(folder)
    tokens = np.arange(20).reshape(2, 10)
    np.testing.assert_allclose(jax.jit(model)(tokens), model(tokens), atol=1e-5)
