# SPDX-License-Identifier: Apache-2.0
"""Metrics files and MFU."""

import json

import pytest

from bcmb_jax.training.metrics import MetricsWriter, mfu


def steps(path):
    return [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_resuming_forgets_what_was_written_after_the_checkpoint(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 1.0, "mfu": None})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "los')  # killed in the middle of a line
    writer = MetricsWriter(tmp_path, 2)
    assert not writer.evaluated
    writer.write(3, {"loss": 2.0})
    writer.close()
    assert steps(tmp_path) == [1, 2, 3]
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    "damage",
    [b'{"step": 2, "lo', b"\0\xff\xfe\0", b"[2]", b"2", b'{"step": "2"}', b"", b"[" * 9999],
)
def test_a_damaged_line_is_named_and_left_out(tmp_path, caplog, damage):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(
        b'{"step": 1}\n' + damage + b'\n{"step": 3}\n{"step": 3, "eval/x/loss": 2.5}\n'
    )
    writer = MetricsWriter(tmp_path, 3)
    writer.close()
    assert writer.evaluated
    assert steps(tmp_path) == [1, 3, 3]
    assert "metrics.jsonl: line 2 is damaged and left out" in caplog.text


def test_mfu_is_a_share_of_a_known_peak():
    assert mfu(1e5, 1e9, "NVIDIA H100 80GB HBM3", 2) == pytest.approx(1e14 / (2 * 989e12))
    assert mfu(1e5, 1e9, "cpu", 1) is None
