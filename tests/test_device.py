# SPDX-License-Identifier: Apache-2.0
"""The precision that a device chooses, and the commit that a report names."""

import subprocess

import pytest

from bcmb_jax import device
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
    monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda: instructions)
    assert device.compute_dtype("").name == expected
    assert device.compute_dtype("fp32").name == "float32"
    assert device.compute_dtype("bf16").name == "bfloat16"


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
