# SPDX-License-Identifier: Apache-2.0
"""Verification sees what differs: a bit, a size, an output, a word of the rest."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax.errors import InputError
from conversion.verify import compare, judge, make_inputs, our_outputs
from conversion.weights import read
from tests.fixtures.tiny_weights import TINY, edit_config, random_weights


def test_verification_sees_a_flipped_bit_and_another_config(folder) -> None:
    weights = read(folder)
    compare(weights, read(folder))
    (folder / "manifest.json").unlink()  # or reading would notice already
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4] ^= 1  # the lowest bit of the last number
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"1 of 23 tensors changed, the worst model.layers.2"):
        compare(weights, read(folder))
    data[-4] ^= 1
    file.write_bytes(data)
    edit_config(folder, local_attention=18)
    with pytest.raises(InputError, match="config"):
        compare(weights, read(folder))


@pytest.mark.parametrize("wrong", ["window", "theta", "norm_eps"])
def test_verification_sees_other_logits(wrong) -> None:
    weights = random_weights()
    inputs = make_inputs(weights)
    changes = {
        "window": {"local_attention": TINY.local_attention + 2},
        "theta": {"global_rope_theta": TINY.global_rope_theta * 1.01},
        "norm_eps": {"norm_eps": 1e-4},
    }[wrong]
    other = weights._replace(config=dataclasses.replace(TINY, **changes))
    single, double = np.dtype("float32"), np.dtype("float64")
    right = our_outputs(weights, inputs, double)
    theirs = our_outputs(weights, inputs, single)
    found = judge(theirs, right, theirs, right)
    assert found.error == 0
    assert 0 < found.their_error < 1e-5
    with pytest.raises(InputError, match="logits on padded input are off by"):
        judge(theirs, our_outputs(other, inputs, double), theirs, right)
    nan = {kind: x * np.nan for kind, x in right.items()}
    with pytest.raises(InputError, match="off by nan"):
        judge(theirs, nan, theirs, right)


def test_the_rest_of_a_composer_file_may_neither_change_nor_shrink() -> None:
    rest = {"state": {"run_name": "a", "rank_zero_seed": float("nan")}, "rng": []}
    weights = random_weights()._replace(meta={"composer": rest})
    compare(weights, weights)
    for other in ({}, {"state": rest["state"]}, rest | {"state": {"run_name": "a"}}, None):
        meta = {} if other is None else {"composer": other}
        with pytest.raises(InputError, match="composer of random has changed"):
            compare(weights, weights._replace(meta=meta))
    compare(weights, weights._replace(meta={}, folder=Path("a Hugging Face folder")))
