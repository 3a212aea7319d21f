# SPDX-License-Identifier: Apache-2.0
"""Every implementation against the dense reference; the reference against the contract."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import packed_segments

from bcmb_jax.attention import IMPLEMENTATIONS, attention
from bcmb_jax.attention.mask import key_intervals, segment_positions

# Of the largest element: fp32 rounding of sums over at most 1,000 keys; bf16 operands.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}
OTHERS = [name for name in IMPLEMENTATIONS if name != "reference"]


def qkv(shape, dtype, seed=0):
    random = np.random.default_rng(seed)
    return tuple(jnp.asarray(random.normal(size=shape), dtype) for _ in range(4))


@functools.partial(jax.jit, static_argnames=("window", "implementation"))
def outputs_and_gradients(q, k, v, g, segment_ids, window, implementation):
    run = functools.partial(
        attention, segment_ids=segment_ids, window=window, implementation=implementation
    )
    out, pull = jax.vjp(run, q, k, v)
    return out, *pull(g.astype(out.dtype))


@pytest.mark.parametrize("implementation", OTHERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("window", [None, 1, 8, 64, 100, 200])
@pytest.mark.parametrize("length", [96, 1000])
def test_equals_the_reference(implementation, dtype, window, length):
    segment_ids = packed_segments(3, length)
    arrays = qkv((3, length, 2, 32), dtype)
    found = outputs_and_gradients(*arrays, segment_ids, window, implementation)
    wide = [x.astype(jnp.float32) for x in arrays]
    expected = outputs_and_gradients(*wide, segment_ids, window, "reference")
    for ours, reference in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        error = jnp.abs(ours.astype(jnp.float32) - reference).max()
        assert error <= TOLERANCE[dtype] * jnp.abs(reference).max()


def test_intervals_are_segment_and_window():
    segment_ids = np.array([[1, 1, 1, 2, 2, 0]])
    start, end = key_intervals(segment_ids, 1)
    assert start.tolist() == [[0, 0, 1, 3, 3, 0]] and end.tolist() == [[2, 3, 3, 5, 5, 0]]
    start, end = key_intervals(segment_ids, None)
    assert start.tolist() == [[0, 0, 0, 3, 3, 0]] and end.tolist() == [[3, 3, 3, 5, 5, 0]]
    assert segment_positions(segment_ids).tolist() == [[0, 1, 2, 0, 1, 0]]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_distance_64_attends_and_65_does_not(implementation):
    q, k, v, _ = qkv((1, 200, 1, 32), "float32")
    ones = np.ones((1, 200), np.int32)

    def query_100(v):
        out = attention(q, k, v, segment_ids=ones, window=64, implementation=implementation)
        return (out[0, 100] ** 2).sum()

    reached = np.abs(np.asarray(jax.grad(query_100)(v))[0, :, 0]).max(-1) > 0
    assert reached.nonzero()[0].tolist() == list(range(36, 165))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("window", [None, 64])
def test_padding_gives_zero_and_no_nan(implementation, window):
    arrays = qkv((2, 100, 2, 32), "float32")
    nothing = np.zeros((2, 100), np.int32)
    for x in outputs_and_gradients(*arrays, nothing, window, implementation):
        np.testing.assert_array_equal(x, 0.0)


@pytest.mark.parametrize("window", [None, 64])
def test_large_scores_do_not_overflow(window):
    q, k, v, g = qkv((1, 96, 1, 32), "float32")
    ones = np.ones((1, 96), np.int32)
    for x in outputs_and_gradients(1e4 * q, k, v, g, ones, window, "xla"):
        assert np.isfinite(x).all()


@pytest.mark.parametrize("other", [slice(1024, None), slice(0, 1024)])
def test_global_rows_of_short_documents_skip_blocks(other):
    # NaN in another document's keys and values would spread through any product that met them,
    # masked or not; blocks out of reach are never read.
    q, k, v, _ = qkv((1, 2048, 1, 32), "float32")
    segment_ids = np.repeat([1, 2], 1024)[None]
    k, v = (x.at[0, other].set(jnp.nan) for x in (k, v))
    out = attention(q, k, v, segment_ids=segment_ids, window=None, implementation="xla")
    ours = np.ones(2048, bool)
    ours[other] = False
    assert np.isfinite(np.asarray(out)[0, ours]).all()


def test_a_name_is_never_replaced():
    q, k, v, _ = qkv((1, 8, 1, 32), "float32")
    with pytest.raises(ValueError, match="'flash' is not one of"):
        attention(q, k, v, segment_ids=np.ones((1, 8)), window=None, implementation="flash")
    with pytest.raises(ValueError, match=r"segment_ids \[B, L\]"):
        attention(q, k, v, segment_ids=np.ones((1, 9)), window=None)
