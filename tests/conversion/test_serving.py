# SPDX-License-Identifier: Apache-2.0
"""Folders for programs that run a model without ours, as far as they need no PyTorch."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import conversion
from bcmb_jax.commands import main
from bcmb_jax.errors import InputError
from conversion import serving
from conversion.export import refuse_to_lose, write_huggingface
from conversion.weights import read
from tests.fixtures.cards import run_example
from tests.fixtures.tiny_weights import TINY, random_weights, same_bits


@pytest.mark.slow
def test_a_program_gives_our_outputs_for_any_number_of_rows(
    tiny_tokenizer, tmp_path, capsys, monkeypatch
) -> None:
    folder, target = tmp_path / "model", tmp_path / "program"
    folder.mkdir()
    small = dataclasses.replace(TINY, num_hidden_layers=2, global_attn_every_n_layers=2)
    write_huggingface(random_weights(small)._replace(tokenizer=tiny_tokenizer), folder)
    main("convert", "--input", str(folder), "--to", "stablehlo", "--output", str(target))
    assert "largest difference of outputs" in capsys.readouterr().out
    program = jax.export.deserialize(bytearray((target / "model-128.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    weights = load_file(target / "model.safetensors")
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 300, (3, 128), dtype=np.int32)
    segments = np.repeat([[1] * 50 + [2] * 60 + [0] * 18], 3, 0).astype(np.int32)
    outputs = np.asarray(program.call(weights, tokens, segments))
    expected = np.asarray(conversion.from_pretrained(folder)(tokens, segments))
    np.testing.assert_allclose(outputs[:, :110], expected[:, :110], atol=2e-6)
    ran = run_example(target, monkeypatch)
    assert ran["outputs"].shape == (1, 128, 300)
    refuse_to_lose(target, overwrite=True)  # all of it is known to be ours


@pytest.mark.parametrize(("pooling", "mode"), [("mean", "mean_tokens"), ("cls", "cls_token")])
def test_sentence_transformers_reads_an_encoder_with_its_pooling(
    folder, tmp_path, pooling, mode
) -> None:
    target = tmp_path / "vectors"
    given = ["--input", str(folder), "--to", "sentence-transformers", "--pooling", pooling]
    main("convert", *given, "--output", str(target), "--license", "none needed")
    written = read(target)
    assert written.head.kind == "encoder"
    assert same_bits(written.params, conversion.from_pretrained(folder, "encoder").weights.params)
    assert written.agreements == read(folder).agreements
    config = json.loads((target / "1_Pooling" / "config.json").read_text())
    assert [x for x in config if config[x] is True] == [f"pooling_mode_{mode}"]
    assert config["word_embedding_dimension"] == 16
    assert "library_name: sentence-transformers" in (target / "README.md").read_text()
    refuse_to_lose(target, overwrite=True)


def test_other_outputs_than_ours_are_refused(folder, tmp_path) -> None:
    weights = read(folder)
    ours = serving.our_outputs(weights)
    scale = np.abs(ours(np.arange(128, dtype=np.int32) % 300)).max()
    with pytest.raises(InputError, match="verification failed: largest difference of outputs"):
        serving.compare(weights, ours, lambda x: ours(x) + 3e-4 * scale)
    with pytest.raises(InputError, match="verification failed"):
        serving.compare(weights, ours, lambda x: ours(x) * np.nan)
    same = serving.compare(weights, ours, ours)
    assert same == pytest.approx((0.0, scale, 1.0, 1.0), rel=0.5)
    assert same.largest == 0


def test_no_tokenizer_and_wrong_options_are_one_line(folder, tmp_path, capsys) -> None:
    weights = random_weights()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        serving.write_stablehlo(weights, tmp_path, "model")
    given = ["--input", str(folder), "--output", str(tmp_path / "out"), "--to"]
    for wrong in (["onnx", "--dtype", "float16"], ["onnx", "--pooling", "cls"]):
        with pytest.raises(InputError, match=r"--dtype is for|--pooling is for"):
            main("convert", *given, *wrong)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="give a folder"):
        main("convert", *given, "onnx", "--output", str(tmp_path / "model.onnx"))


def test_a_weight_that_changed_on_the_way_is_noticed(folder, tmp_path, monkeypatch) -> None:
    def save_another(tensors, file, **given) -> None:
        changed = {name: x + (name == "final_norm.weight") for name, x in tensors.items()}
        changed |= {n: x * 1.01 for n, x in tensors.items() if n.endswith("final_norm.weight")}
        save_file(changed, file, **given)

    monkeypatch.setattr(serving, "save_file", save_another)
    with pytest.raises(InputError, match="verification failed"):
        serving.write_stablehlo(read(folder), tmp_path, "model")
