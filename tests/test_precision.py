# SPDX-License-Identifier: Apache-2.0
"""precision: the device's choice, on machines that multiply bf16 and on those that do not."""

import pytest

from bcmb_jax import device, precision
from bcmb_jax.device import Target


@pytest.mark.parametrize(
    ("platform", "instructions", "expected"),
    [
        ("cpu", True, "bfloat16"),
        ("cpu", False, "float32"),
        ("gpu", False, "bfloat16"),
        ("tpu", False, "bfloat16"),
    ],
)
def test_the_device_chooses(platform, instructions, expected, monkeypatch):
    monkeypatch.setattr(device, "target", lambda: Target(platform, platform))
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: instructions)
    assert precision.compute_dtype("").name == expected
    assert precision.compute_dtype("fp32").name == "float32"
    assert precision.compute_dtype("bf16").name == "bfloat16"
