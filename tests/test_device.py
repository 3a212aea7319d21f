# SPDX-License-Identifier: Apache-2.0
"""The precision that a device chooses, and the commit that a report names."""

import dataclasses
import re
import subprocess

import jax
import jax.numpy as jnp
import pytest

from bcmb_jax import device
from bcmb_jax.device import Target, compute_dtype, products_in, resolve_precision
from bcmb_jax.errors import InputError
from bcmb_jax.model.parameters import merge, split
from tests.fixtures.tiny_batches import packed_batch
from tests.fixtures.tiny_model import TINY, masked_lm


@pytest.fixture(params=["cpu", "gpu", "tpu"])
def platform(request, monkeypatch):
    """Each kind of device in turn; the CPU with bf16 instructions and without."""
    monkeypatch.setattr(device, "target", lambda: Target(request.param, request.param))
    return request.param


@pytest.mark.parametrize("instructions", [True, False])
def test_the_kind_of_device_chooses_and_not_its_instructions(platform, instructions, monkeypatch):
    monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda: instructions)
    assert resolve_precision("") == ("fp32" if platform == "cpu" else "bf16")
    assert compute_dtype("").name == ("float32" if platform == "cpu" else "bfloat16")


def test_a_given_precision_is_kept_and_tf32_is_for_gpus(platform):
    names = ("fp32", "bf16", "tf32") if platform == "gpu" else ("fp32", "bf16")
    dtypes = {"fp32": "float32", "bf16": "bfloat16", "tf32": "float32"}
    for name in names:
        assert resolve_precision(name) == name
        assert compute_dtype(name).name == dtypes[name]
    if platform != "gpu":
        with pytest.raises(InputError, match=f"'tf32' is for GPUs; on a {platform} give 'fp32'"):
            resolve_precision("tf32")


@pytest.mark.parametrize("name", ["float32", "BF16", "fp16", " fp32"])
def test_an_unknown_precision_is_named_with_the_known(name):
    with pytest.raises(InputError, match=f"{name!r} is not 'bf16', 'tf32' or 'fp32'"):
        resolve_precision(name)


@pytest.mark.parametrize("implementation", ["xla", "interval"])
@pytest.mark.parametrize(("precision", "expected"), [("fp32", "HIGHEST"), ("tf32", "HIGH")])
def test_every_product_of_both_passes_is_as_exact_as_asked(precision, expected, implementation):
    dtype = jnp.dtype("float32")
    config = dataclasses.replace(TINY, hidden_size=32)  # heads of 16, as the kernel takes
    graph, shapes = split(lambda: masked_lm(config, dtype=dtype, implementation=implementation))
    batch = packed_batch(2, 64)

    def loss(params):
        return merge(graph, params)(batch.tokens, batch.segment_ids, batch.positions).sum()

    with products_in(precision):
        program = str(jax.make_jaxpr(jax.grad(loss))(shapes))
    products = re.findall(r" precision=\(?(?:Precision\.)?(\w+)", program)
    assert len(products) > 20
    assert set(products) == {expected}


def test_a_report_names_the_commit_and_whether_the_code_has_changed_since(tmp_path):
    assert device.commit(tmp_path) is None

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.check_output(command, text=True).strip()

    git("init", "-q")
    (tmp_path / "code.py").write_text("one")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    head = git("rev-parse", "HEAD")[:10]
    (tmp_path / "report.json").write_text("{}")
    assert device.commit(tmp_path) == head
    (tmp_path / "code.py").write_text("two")
    assert device.commit(tmp_path) == head + "+"
