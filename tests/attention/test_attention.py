# SPDX-License-Identifier: Apache-2.0
"""Every implementation against the dense reference; the reference against the contract."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.attention import IMPLEMENTATIONS, LIBRARIES, attention, banded, choose
from bcmb_jax.attention.mask import (
    fully_visible_keys,
    key_intervals,
    segment_positions,
    visited_keys,
    visited_queries,
)
from bcmb_jax.device import Target, on_cpu, target
from tests.fixtures.tiny_batches import assert_within, packed_segments

# Of the largest element: fp32 rounding of sums over at most 2,400 keys; bf16 operands.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


@functools.cache
def why_not(implementation: str, dtype: str) -> str:
    """Why it cannot run here; empty if it can."""
    q = jax.ShapeDtypeStruct((1, 64, 1, 32), dtype)
    segment_ids = np.ones((1, 64), np.int32)
    for window in (None, 4):
        try:
            run = functools.partial(attention, segment_ids=segment_ids, window=window)
            jax.eval_shape(functools.partial(run, implementation=implementation), q, q, q)
        except ValueError as error:
            return str(error)
    return ""


HERE = {
    dtype: [name for name in IMPLEMENTATIONS[1:] if not why_not(name, dtype)] for dtype in TOLERANCE
}
"""By dtype: libraries take bfloat16 alone on a GPU."""
EITHER = {name: dtype for dtype in reversed(TOLERANCE) for name in HERE[dtype]}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_is_tested_where_it_runs(name):
    assert HERE["float32"][:2] == HERE["bfloat16"][:2] == ["xla", "interval"]
    if reason := why_not(name, "bfloat16"):
        assert re.search("runs on NVIDIA GPUs only|pip install", reason)
        pytest.skip(reason)


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


def assert_close(found, expected, dtype):
    for ours, reference in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert_within(TOLERANCE[dtype], ours, reference)


@pytest.mark.parametrize(
    ("dtype", "implementation"), [(dtype, name) for dtype in TOLERANCE for name in HERE[dtype]]
)
@pytest.mark.parametrize(
    ("length", "head_size", "window"),
    [
        *((96, 32, window) for window in (None, 1, 100)),
        *((600, 64, window) for window in (None, 64, 200)),
        *(
            pytest.param(*sizes, marks=pytest.mark.slow)
            for sizes in ((96, 32, 64), (96, 32, 200), (600, 64, 1), (600, 64, 100))
        ),
    ],
)
def test_equals_the_reference(dtype, implementation, window, length, head_size):
    segment_ids = packed_segments(3, length)
    arrays = qkv((3, length, 2, head_size), dtype)
    found = outputs_and_gradients(*arrays, segment_ids, window, implementation)
    wide = [x.astype(jnp.float32) for x in arrays]
    expected = outputs_and_gradients(*wide, segment_ids, window, "reference")
    assert_close(found, expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("window", [None, 1200])
def test_long_documents_of_which_tiles_are_seen_whole_equal_the_reference(dtype, window):
    segment_ids = np.repeat([1, 2, 3, 0], [2400, 100, 1300, 800])[None]
    arrays = qkv((1, 4600, 1, 32), dtype)
    found = outputs_and_gradients(*arrays, segment_ids, window, "xla")
    wide = [x.astype(jnp.float32) for x in arrays]
    expected = outputs_and_gradients(*wide, segment_ids, window, "reference")
    assert_close(found, expected, dtype)


@pytest.mark.parametrize("window", [None, 1200])
def test_the_bits_of_a_long_document_do_not_depend_on_its_neighbours(window):
    ours = slice(700, 3000)
    arrays = qkv((1, 3900, 1, 32), "float32")
    others = [
        x.at[:, ours].set(y[:, ours])
        for x, y in zip(qkv((1, 3900, 1, 32), "float32", seed=1), arrays, strict=True)
    ]
    among = np.repeat([1, 2, 3], [700, 2300, 900])[None]
    amid = np.repeat([1, 2, 3, 4, 0], [200, 500, 2300, 40, 860])[None]
    found = outputs_and_gradients(*arrays, among, window, "xla")
    again = outputs_and_gradients(*others, amid, window, "xla")
    for x, y in zip(found, again, strict=True):
        np.testing.assert_array_equal(x[:, ours], y[:, ours])
        assert (x[:, :700] != y[:, :700]).any()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_short_rows_joined_to_several_longer_ones_equal_the_reference(dtype, monkeypatch):
    # Rows of 100 tokens are filled up to 128: two in each joined row, and an empty sixth.
    monkeypatch.setattr(banded, "JOINED_TOKENS", 256)
    segment_ids, arrays = packed_segments(5, 100), qkv((5, 100, 2, 32), dtype)
    found = outputs_and_gradients(*arrays, segment_ids, 64, "xla")
    wide = [x.astype(jnp.float32) for x in arrays]
    assert_close(found, outputs_and_gradients(*wide, segment_ids, 64, "reference"), dtype)


@pytest.mark.skipif(not on_cpu(), reason="elsewhere bf16 stays as it is")
@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("length", [128, 2048])
def test_no_loop_on_a_cpu_converts_what_it_writes_a_piece_of(window, length):
    """XLA has no update of a bf16 array there: it would convert all of it, twice, at every turn."""
    batch, heads, size = 2, 3, 16
    x = jax.ShapeDtypeStruct((batch, length, heads, size), jnp.bfloat16)
    segment_ids = jnp.ones((batch, length), jnp.int32)

    def gradients(q, k, v):
        run = functools.partial(attention, segment_ids=segment_ids, window=window)
        return jax.vjp(run, q, k, v)[1](q)

    program = jax.jit(gradients).lower(x, x, x).compile().as_text()
    rows = f"(?:{batch},{length}|1,{batch * length}),{heads},{size}"
    tiles = f"{length // 512},512,{size}"
    updates = re.findall(rf"= (\w+)\[(?:{rows}|{tiles})\]\S* dynamic-update-slice\(", program)
    # The output and three gradients, and in long rows of global layers the tiles of two of them.
    assert set(updates) == {"u16"}
    assert len(updates) >= (6 if length > 512 and not window else 4)


def test_intervals_are_segment_and_window():
    segment_ids = np.array([[1, 1, 1, 2, 2, 0]])
    start, end = key_intervals(segment_ids, 1)
    assert start.tolist() == [[0, 0, 1, 3, 3, 0]]
    assert end.tolist() == [[2, 3, 3, 5, 5, 0]]
    start, end = key_intervals(segment_ids, None)
    assert start.tolist() == [[0, 0, 0, 3, 3, 0]]
    assert end.tolist() == [[3, 3, 3, 5, 5, 0]]
    assert segment_positions(segment_ids).tolist() == [[0, 1, 2, 0, 1, 0]]


@pytest.mark.parametrize(("implementation", "dtype"), [("reference", "float32"), *EITHER.items()])
def test_distance_64_attends_and_65_does_not(implementation, dtype):
    q, k, v, _ = qkv((1, 200, 1, 32), dtype)
    ones = np.ones((1, 200), np.int32)

    def query_100(v):
        out = attention(q, k, v, segment_ids=ones, window=64, implementation=implementation)
        return (out[0, 100].astype(jnp.float32) ** 2).sum()

    reached = np.abs(np.asarray(jax.grad(query_100)(v))[0, :, 0]).max(-1) > 0
    assert reached.nonzero()[0].tolist() == list(range(36, 165))


@pytest.mark.parametrize(("implementation", "dtype"), [("reference", "float32"), *EITHER.items()])
@pytest.mark.parametrize("window", [None, 64])
def test_padding_gives_zero_and_no_nan(implementation, dtype, window):
    arrays = qkv((2, 100, 2, 32), dtype)
    nothing = np.zeros((2, 100), np.int32)
    for x in outputs_and_gradients(*arrays, nothing, window, implementation):
        np.testing.assert_array_equal(x, 0.0)


@pytest.mark.parametrize("implementation", ["xla", "interval"])
@pytest.mark.parametrize("window", [None, 64])
def test_large_scores_do_not_overflow(implementation, window):
    q, k, v, g = qkv((1, 96, 1, 32), "float32")
    ones = np.ones((1, 96), np.int32)
    for x in outputs_and_gradients(1e4 * q, k, v, g, ones, window, implementation):
        assert np.isfinite(x).all()


@pytest.mark.parametrize("other", [slice(1024, None), slice(0, 1024)])
@pytest.mark.parametrize(
    ("implementation", "window"), [("xla", None), ("interval", None), ("interval", 64)]
)
def test_what_no_block_sees_is_never_read(implementation, window, other):
    # NaN in another document would spread through any product that met it, masked or not.
    segment_ids = np.repeat([1, 2], 1024)[None]
    arrays = [x.at[0, other].set(jnp.nan) for x in qkv((1, 2048, 1, 32), "float32")]
    ours = np.ones(2048, bool)
    ours[other] = False
    for x in outputs_and_gradients(*arrays, segment_ids, window, implementation):
        assert np.isfinite(np.asarray(x)[0, ours]).all()
        assert np.isnan(np.asarray(x)[0, ~ours]).all()


@pytest.mark.parametrize("window", [None, 1, 64, 200])
def test_visited_blocks_are_those_with_something_to_see_and_whole_ones_those_all_seen(window):
    block, segment_ids = 32, packed_segments(4, 512)
    start, end = key_intervals(segment_ids, window)
    keys = np.arange(512)
    seen = (keys >= np.asarray(start)[..., None]) & (keys < np.asarray(end)[..., None])

    def blocks(of_keys):
        return seen.reshape(4, 16, block, -1, of_keys)

    def among(bounds, count):
        first, stop = (np.asarray(x)[..., None] for x in bounds)
        return (np.arange(count) >= first) & (np.arange(count) < stop)

    for size in (block, 8):
        some, whole = blocks(size).any((2, 4)), blocks(size).all((2, 4))  # [row, queries, keys]
        count = 512 // size
        np.testing.assert_array_equal(among(visited_keys(start, end, block, size), count), some)
        np.testing.assert_array_equal(
            among(fully_visible_keys(start, end, block, size)[1:3], count), whole
        )
    some = blocks(block).any((2, 4)).swapaxes(1, 2)
    np.testing.assert_array_equal(among(visited_queries(start, end, block), 16), some)
    assert blocks(block).all((2, 4)).any() == (window != 1)


@pytest.mark.parametrize(("window", "visited"), [(None, 512), (64, 320)])
def test_how_many_of_16384_blocks_documents_of_256_tokens_visit(window, visited):
    segment_ids = np.repeat(np.arange(32) + 1, 256)[None]
    start, end = key_intervals(jnp.asarray(segment_ids), window)
    for first, stop in (visited_keys(start, end, 64, 64), visited_queries(start, end, 64)):
        assert (stop - first).sum() == visited


def test_the_choice_by_device_and_dtype(caplog):
    caplog.set_level("INFO")
    bf16, fp32 = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)
    ampere = "NVIDIA A100-SXM4-40GB", "NVIDIA L4", "NVIDIA GeForce MX570", "NVIDIA RTX A2000"
    for kind in ("NVIDIA H100 80GB HBM3", "NVIDIA H200", *ampere):
        assert choose(Target("gpu", kind), bf16, 64) == "interval"
        assert choose(Target("gpu", kind), fp32, 64) == "xla"
        assert choose(Target("gpu", kind), jnp.dtype("float64"), 64) == "xla"
    turing = "T4", "T1000", "T1200 Laptop GPU", "GeForce MX450", "GeForce RTX 2080 Ti"
    for kind in ("Tesla V100-SXM2-32GB", *turing):
        assert choose(Target("gpu", f"NVIDIA {kind}"), bf16, 64) == "xla"
    assert choose(Target("gpu", "AMD MI250X"), bf16, 64) == "xla"
    assert choose(Target("gpu", "NVIDIA H100"), bf16, 48) == "xla"
    before = len(caplog.records)
    for _ in range(3):
        assert choose(Target("cpu", "cpu of this test"), bf16, 64) == "xla"
    assert [x.getMessage() for x in caplog.records[before:]] == [
        "attention on cpu of this test in bfloat16: xla (banded local layers, chunked global ones)"
    ]


def test_a_name_is_never_replaced():
    q, k, v, _ = qkv((1, 8, 1, 32), "float32")
    with pytest.raises(ValueError, match="'flash' is not one of"):
        attention(
            q, k, v, segment_ids=np.ones((1, 8), np.int32), window=None, implementation="flash"
        )
    if target().platform == "cpu":
        with pytest.raises(ValueError, match="'dew' runs on NVIDIA GPUs only, not cpu"):
            attention(
                q, k, v, segment_ids=np.ones((1, 8), np.int32), window=None, implementation="dew"
            )
    odd = jnp.zeros((1, 8, 1, 24))
    with pytest.raises(ValueError, match="16, 32, 64 and 128, not 24; implementation='xla'"):
        attention(
            odd,
            odd,
            odd,
            segment_ids=np.ones((1, 8), np.int32),
            window=None,
            implementation="interval",
        )
    with pytest.raises(ValueError, match=r"segment_ids \[B, L\]"):
        attention(q, k, v, segment_ids=np.ones((1, 9), np.int32), window=None)
