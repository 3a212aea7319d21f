# SPDX-License-Identifier: Apache-2.0
"""The table of tensors: complete, in the order of bytes, with errors that list both sides."""

import numpy as np
import pytest
from flax import nnx

from bcmb_jax.errors import InputError, NumericsError
from bcmb_jax.model.config import BASE, LARGE
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.model.parameters import split
from conversion.mapping import table, to_ours, to_stored
from tests.fixtures.tiny_weights import TINY, random_weights, same_bits


def model_shapes(config, head: Head):
    make = MODELS[head.kind]
    return split(lambda: make(config, head, rngs=nnx.Rngs(0)))[1]


@pytest.mark.parametrize("kind", MODELS)
def test_every_head_has_the_tensors_of_its_table(kind) -> None:
    head = Head(kind, ("yes", "no", "maybe") if "classification" in kind else ())
    shapes = model_shapes(TINY, head)
    assert {row.name: row.shape for row in table(TINY, head)} == {
        name: x.shape for name, x in shapes.items()
    }


@pytest.mark.parametrize(
    ("config", "parameters", "tensors"), [(BASE, 149_655_232, 137), (LARGE, 395_881_664, 173)]
)
def test_table_and_model_have_the_published_sizes(config, parameters, tensors) -> None:
    rows = table(config)
    shapes = model_shapes(config, Head())
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
    assert qkv.shape == (3, 2, 8, 16)
    assert qkv[1, 0, 0, 0] == 16 * 16
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
    with pytest.raises(InputError, match=r"decoder.bias int8"):
        to_ours(stored, table(TINY), "x")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(value) -> None:
    stored = to_stored(random_weights().params, table(TINY))
    stored["decoder.bias"] = stored["decoder.bias"].copy()
    stored["decoder.bias"][3] = value
    with pytest.raises(NumericsError, match="x holds NaN or infinity in 1 of 23 tensors: decoder"):
        to_ours(stored, table(TINY), "x")
