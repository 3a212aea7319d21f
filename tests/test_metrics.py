# SPDX-License-Identifier: Apache-2.0
"""Metrics files, the display, and the FLOPs behind MFU."""

import io
import json

import pytest

from bcmb_jax.metrics import Display, MetricsWriter, mfu, train_flops_per_token
from bcmb_jax.model.config import BASE, LARGE


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
    writer.write(3, {"loss": 2.0})
    writer.close()
    assert steps(tmp_path) == [1, 2, 3]
    assert list((tmp_path / "tensorboard").iterdir())


def test_flops_per_token_are_those_of_the_architecture():
    # Forward and backward of the layers alone: 6 FLOPs a weight and token.
    weights = {BASE: 110_297_088, LARGE: 343_146_496}  # all matrices of the layers
    for config, count in weights.items():
        alone = train_flops_per_token(config, mean_segment=0, predicted=0)
        assert alone == 6 * count
    longer = train_flops_per_token(BASE, 8192, 0) - train_flops_per_token(BASE, 0, 0)
    assert longer == 3 * 4 * 768 * (8 * 8192 + 14 * 129)
    decoder = train_flops_per_token(BASE, 0, 0.3) - train_flops_per_token(BASE, 0, 0)
    assert decoder == pytest.approx(0.3 * 6 * 768 * (768 + 50368))


def test_mfu_is_a_share_of_a_known_peak():
    assert mfu(1e5, 1e9, "NVIDIA H100 80GB HBM3", 2) == pytest.approx(1e14 / (2 * 989e12))
    assert mfu(1e5, 1e9, "cpu", 1) is None


def test_a_batch_log_gets_plain_lines_and_a_silent_display_none():
    stream = io.StringIO()
    display = Display(stream=stream)
    display.progress(0.5, "half")
    display.progress(0.6, "too soon")
    display.say("done")
    assert stream.getvalue() == " 50.0%  half\ndone\n"
    silent = Display(silent=True, stream=stream)
    silent.progress(1.0, "x")
    silent.say("x")
    assert "x" not in stream.getvalue()


def test_a_terminal_line_rewrites_itself():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    Display(stream=stream).progress(2.0, "over")
    assert stream.getvalue() == "\r\x1b[K" + "█" * 20 + " 100.0%  over"
