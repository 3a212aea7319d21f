# SPDX-License-Identifier: Apache-2.0
"""The line that says how far a preparation is."""

import io

import pytest

from bcmb_jax.data.report import StageProgress
from bcmb_jax.terminal import Display


def test_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log = io.StringIO()
    line = StageProgress(lambda: 0.25, Display(stream=log))
    for clock[0], stage, documents, fraction in [
        (110.0, "tokenizing", 100, None),
        (112.0, "tokenizing", 120, None),
        (131.0, "tokenizing", 310, None),
        (152.0, "writing train", 210, 0.5),
    ]:
        line(stage, documents, documents * 10, fraction)
    rates = "10 documents/s, 100 tokens/s"
    shown = [text.strip() for text in log.getvalue().splitlines()]
    assert shown[:2] == [
        f"25.0%  tokenizing: 100 documents, 1,000 tokens, {rates}",
        f"25.0%  tokenizing: 310 documents, 3,100 tokens, {rates}",
    ]
    assert len(shown) == 3
    assert shown[2].startswith(f"50.0%  writing train: 210 documents, 2,100 tokens, {rates}")


def test_progress_without_tokens_or_a_known_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log = io.StringIO()
    line = StageProgress(lambda: 0.0, Display(stream=log))
    clock[0] = 140.0
    line("looking", 4000)
    assert log.getvalue() == "looking: 4,000 documents, 100 documents/s\n"
