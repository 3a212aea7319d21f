# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in and out: complete tables, every bit kept, nothing half-written, clear refusals."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import conversion
from bcmb_jax.checkpoint import Checkpoints, Progress, TrainState, latest
from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import BASE, LARGE, ModelConfig
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import split
from bcmb_jax.optimizer import stable_adamw
from conversion.config_json import config_json, read_config
from conversion.convert import convert, main
from conversion.mapping import table, to_ours, to_stored
from conversion.verify import compare_logits, jax_logits, make_inputs, verify
from conversion.weights import Weights, check_free_space, publish, read, write_huggingface

TINY = ModelConfig(
    vocab_size=300,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    local_attention=16,
    global_rope_theta=5000.0,
    local_rope_theta=700.0,
    max_position_embeddings=128,
)
IDS = {"cls": 7, "sep": 8, "pad": 9}


def random_weights(config: ModelConfig = TINY) -> Weights:
    rng = np.random.default_rng(0)
    params = {
        row.name: (rng.normal(size=row.shape) * 0.3).astype(np.float32) for row in table(config)
    }
    return Weights(config, params, IDS, None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(["a stroke of the left artery", "the left lung is clear"], 300, directory)
    return directory


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    """A Hugging Face folder with weights and tokenizer."""
    write = functools.partial(write_huggingface, random_weights()._replace(tokenizer=tokenizer))
    publish(tmp_path / "huggingface", write, overwrite=False)
    return tmp_path / "huggingface"


def same_bits(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(
        np.asarray(x).tobytes() == np.asarray(theirs[name]).tobytes() for name, x in ours.items()
    )


def edit_config(folder: Path, **changes) -> None:
    """Change keys of a folder's config.json; ... removes one."""
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {key: value for key, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "parameters", "tensors"), [(BASE, 149_655_232, 137), (LARGE, 395_881_664, 173)]
)
def test_table_and_model_have_the_published_sizes(config, parameters, tensors) -> None:
    _, shapes = split(lambda: ModernBertForMaskedLM(config, rngs=nnx.Rngs(0)))
    rows = table(config)
    assert {row.name: row.shape for row in rows} == {n: x.shape for n, x in shapes.items()}
    assert len(rows) == tensors
    assert sum(np.prod(row.stored) for row in rows) == parameters
    assert sum(x.size for x in shapes.values()) == parameters


def test_views_keep_the_order_of_bytes() -> None:
    rows = table(TINY)
    stored = {
        row.name: np.arange(np.prod(row.stored), dtype=np.float32).reshape(row.stored)
        for row in rows
    }
    ours = to_ours(stored, rows, "here")
    qkv = ours["model.layers.1.attn.Wqkv.weight"]
    assert qkv.shape == (3, 2, 8, 16) and qkv[1, 0, 0, 0] == 16 * 16  # keys after queries
    assert same_bits(to_stored(ours, rows), stored)


def test_errors_list_both_sides() -> None:
    rows = table(TINY)
    stored = to_stored(random_weights().params, rows)
    stored["model.final.weight"] = stored.pop("model.final_norm.weight")
    stored["decoder.bias"] = stored["decoder.bias"][1:]
    with pytest.raises(InputError) as error:
        to_ours(stored, rows, "x.safetensors")
    message = str(error.value)
    assert "1 missing: model.final_norm.weight" in message
    assert "1 unexpected: model.final.weight" in message
    assert "decoder.bias is [299] and should be [300]" in message
    assert "\n" not in message


def test_integers_are_refused() -> None:
    stored = to_stored(random_weights().params, table(TINY))
    stored["decoder.bias"] = stored["decoder.bias"].astype(np.int8)
    with pytest.raises(InputError, match="decoder.bias int8"):
        to_ours(stored, table(TINY), "x")


# --- config.json ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "every"), [(1, 1), (3, 3), (4, 3), (7, 2)])
def test_both_dialects_are_read_alike(tmp_path, layers, every) -> None:
    config = dataclasses.replace(TINY, num_hidden_layers=layers, global_attn_every_n_layers=every)
    values = config_json(config, IDS) | {"something_new": 1}
    of_four = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    of_five = ("layer_types", "rope_parameters")
    for left_out in ((), of_four, of_five):
        kept = {key: value for key, value in values.items() if key not in left_out}
        (tmp_path / "config.json").write_text(json.dumps(kept))
        assert read_config(tmp_path) == (config, IDS), left_out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"model_type": ...}, "model_type None"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"norm_bias": True}, "norm_bias True"),
        ({"hidden_activation": "relu"}, "hidden_activation 'relu'"),
        ({"decoder_bias": False}, "decoder_bias False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ({"layer_types": ["full_attention"] * 2 + ["sliding_attention"]}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"global_rope_theta": 9.0}, "global_rope_theta 9.0"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 5000.0}}},
            "'yarn'",
        ),
        ({"num_attention_heads": 3}, "head size"),
    ],
)
def test_configs_that_do_not_exist_here_are_refused(folder, changes, message) -> None:
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=message) as error:
        conversion.from_pretrained(folder)
    assert "config.json" in str(error.value) and "\n" not in str(error.value)


def test_exported_config_is_for_fine_tuning_too(folder) -> None:
    values = json.loads((folder / "config.json").read_text())
    assert values["attention_dropout"] == 0.0  # although training drops 10 %
    assert values["classifier_pooling"] == "mean"
    assert values["architectures"] == ["ModernBertForMaskedLM"]
    assert values["tie_word_embeddings"] is True
    special = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {entry["content"]: entry["id"] for entry in special}
    assert values["cls_token_id"] == values["bos_token_id"] == ids["[CLS]"]
    assert values["sep_token_id"] == values["eos_token_id"] == ids["[SEP]"]
    assert values["pad_token_id"] == ids["[PAD]"]


# --- reading --------------------------------------------------------------------------------------


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
    with pytest.raises(InputError, match="has no model-00002-of-00002.safetensors"):
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
    with pytest.raises(InputError, match="3 missing: head.dense.weight, head.norm.weight, decod"):
        conversion.from_pretrained(folder)


def test_damaged_and_missing_models_are_one_line(folder, tmp_path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    (tmp_path / "empty").mkdir()
    for path in (folder, tmp_path / "empty", tmp_path / "nowhere", "some/model"):
        with pytest.raises(InputError) as error:
            conversion.from_pretrained(path)
        assert "\n" not in str(error.value)


def test_a_run_starts_from_its_own_checkpoints_with_moments(tmp_path, tokenizer) -> None:
    weights = random_weights()
    state = TrainState(weights.params, stable_adamw(max_lr=0.5).init(weights.params))
    moments = jax.tree.map(lambda x: x + 1, state.opt_state)
    run = tmp_path / "run"
    checkpoints = Checkpoints(run / "checkpoints", 2)
    facts = {"config": {"model": TINY.as_dict()}, "tokenizer": {"special": IDS}}
    for step in (3, 12):
        params = {name: jnp.asarray(x * step) for name, x in weights.params.items()}
        checkpoints.save(TrainState(params, moments), Progress(step=step), facts)
    checkpoints.close()
    (run / "config.json").write_text("{}")
    write_huggingface(weights._replace(tokenizer=tokenizer), make(run / "tokenizer"))

    initial = conversion.load_initial(run)
    assert same_bits(initial.params, {n: x * np.float32(12) for n, x in weights.params.items()})
    assert initial.opt_state._fields == moments._fields
    assert initial.opt_state.step == 1 and initial.opt_state.max_lr == 1.5
    assert same_bits(initial.opt_state.exp_avg, moments.exp_avg)
    model = conversion.from_pretrained(run / "checkpoints" / "3")
    assert model.config == TINY and model.tokenizer_directory == (run / "tokenizer").resolve()
    assert same_bits(model.params, {n: x * np.float32(3) for n, x in weights.params.items()})


def make(directory: Path) -> Path:
    directory.mkdir()
    return directory


# --- calling --------------------------------------------------------------------------------------


def test_calls_fill_in_segments_and_positions(folder) -> None:
    model = conversion.from_pretrained(folder, precision="fp32")
    tokens = np.random.default_rng(1).integers(0, 300, (1, 12))
    packed = np.array([[1] * 5 + [2] * 6 + [0]])
    logits = model(tokens, packed)
    assert logits.shape == (1, 12, 300) and logits.dtype == jnp.float32
    # The same kernels on other lengths: their sums may be ordered otherwise.
    np.testing.assert_allclose(logits[:, 5:11], model(tokens[:, 5:11]), atol=1e-5)
    restarted = np.array([[*range(5), *range(6), 0]])
    np.testing.assert_array_equal(logits, model(tokens, packed, restarted))
    assert np.abs(logits - model(tokens, packed, restarted + np.arange(12))).max() > 1e-3


@pytest.mark.parametrize(
    ("tokens", "segment_ids", "message"),
    [
        (np.array([[1, 300]]), None, "from 1 to 300"),
        (np.array([[-1, 3]]), None, "from -1 to 3"),
        (np.array([1, 2]), None, "one shape"),
        (np.array([[1, 2]]), np.array([[1]]), "one shape"),
    ],
)
def test_calls_refuse_what_does_not_fit(folder, tokens, segment_ids, message) -> None:
    with pytest.raises(InputError, match=message):
        conversion.from_pretrained(folder)(tokens, segment_ids)


def test_heads_that_do_not_exist(folder) -> None:
    with pytest.raises(InputError, match="'token_classification' is not one of masked_lm, encoder"):
        conversion.from_pretrained(folder, "token_classification")


# --- writing --------------------------------------------------------------------------------------


def test_round_trip_keeps_every_bit(folder, tmp_path) -> None:
    there = convert(str(folder), "orbax", tmp_path / "orbax", overwrite=False)
    back = convert(str(tmp_path / "orbax"), "huggingface", tmp_path / "back", overwrite=False)
    for found in (there, back):
        assert found.tensors == 23 and found.tensor == 0 and found.logits["original"][0] == 0
    for file in folder.iterdir():
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes(), file.name
    assert latest(tmp_path / "orbax") == (tmp_path / "orbax").resolve()
    initial = conversion.load_initial(tmp_path / "orbax")
    assert initial.opt_state is None and same_bits(initial.params, read(folder).params)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "huggingface", "orbax"]


def test_saving_is_all_or_nothing(folder, tmp_path, tokenizer) -> None:
    model = conversion.from_pretrained(folder)
    target = tmp_path / "new" / "saved"
    conversion.save_pretrained(model, target)
    assert same_bits(read(target).params, read(folder).params)
    with pytest.raises(InputError, match="exists"):
        conversion.save_pretrained(model, target)
    conversion.save_pretrained(model, target, tokenizer, overwrite=True)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="notes.txt"):
        conversion.save_pretrained(model, target, overwrite=True)
    assert (target / "notes.txt").read_text() == "mine"
    train_tokenizer(["too many"], 301, tmp_path / "large")
    with pytest.raises(InputError, match="301 tokens and the model 300"):
        conversion.save_pretrained(model, tmp_path / "new" / "other", tmp_path / "large")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["saved"]


def test_encoders_are_saved_as_encoders(folder, tmp_path) -> None:
    encoder = conversion.from_pretrained(folder, "encoder")
    conversion.save_pretrained(encoder, tmp_path / "encoder")
    values = json.loads((tmp_path / "encoder" / "config.json").read_text())
    assert values["architectures"] == ["ModernBertModel"]
    again = conversion.from_pretrained(tmp_path / "encoder", "encoder")
    assert same_bits(again.params, encoder.params)


def test_tokenizers_of_transformers_5_are_written_for_4_too(folder, tmp_path) -> None:
    source = tmp_path / "five"
    source.mkdir()
    (source / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "pad", "mask", "unk")}
    values = {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", "is_local": True}
    values |= {"model_max_length": 10**30, "extra_special_tokens": []}
    (source / "tokenizer_config.json").write_text(json.dumps(values | names))
    conversion.save_pretrained(conversion.from_pretrained(folder), tmp_path / "saved", source)
    written = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["model_max_length"] == 128
    assert not {"backend", "is_local", "extra_special_tokens"} & set(written)
    special = json.loads((tmp_path / "saved" / "special_tokens_map.json").read_text())
    assert special["mask_token"]["lstrip"] is True and set(special) == set(names)


def test_verification_sees_a_flipped_bit_and_another_config(folder) -> None:
    weights = read(folder)
    verify(weights, folder)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4] ^= 1  # the lowest bit of the last number
    file.write_bytes(data)
    with pytest.raises(InputError, match="1 of 23 tensors changed"):
        verify(weights, folder)
    data[-4] ^= 1  # the lowest bit of the last number
    file.write_bytes(data)
    edit_config(folder, local_attention=18)
    with pytest.raises(InputError, match="config"):
        verify(weights, folder)


def test_verification_sees_other_logits() -> None:
    weights = random_weights()
    config = dataclasses.replace(TINY, local_attention=TINY.local_attention + 2)
    other = jax_logits(weights._replace(config=config))
    with pytest.raises(InputError, match="logits on padded input"):
        compare_logits(jax_logits(weights), {"other": other}, make_inputs(weights))


def test_conversion_fails_before_it_writes(folder, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    edit_config(folder, vocab_size=239)
    with pytest.raises(InputError, match=r"decoder.bias is \[300\] and should be \[239\]"):
        main(["--input", str(folder), "--to", "orbax", "--output", str(output)])
    assert [p.name for p in tmp_path.iterdir()] == ["huggingface"]
    with pytest.raises(InputError, match="free"):
        check_free_space(output / "deeper", 2**62)
    with pytest.raises(SystemExit):
        main(["--input", "x", "--to", "composer", "--output", "y"])
    assert "composer" in capsys.readouterr().err


def test_command_line_errors_are_one_line(tmp_path) -> None:
    command = [sys.executable, "-m", "conversion.convert", "--to", "orbax"]
    done = subprocess.run(
        [*command, "--input", str(tmp_path), "--output", str(tmp_path / "out")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
