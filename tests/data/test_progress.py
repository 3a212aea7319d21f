# SPDX-License-Identifier: Apache-2.0
"""The line that says how far a run is."""

import io

import pytest

from bcmb_jax.data.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log, terminal = io.StringIO(), Terminal()
    lines = [ProgressLine(lambda: 0.25, stream) for stream in (log, terminal)]
    for clock[0], stage, documents, fraction in [
        (110.0, "tokenizing", 100, None),
        (131.0, "tokenizing", 310, None),
        (132.0, "writing train", 50, 0.5),
    ]:
        for line in lines:
            line(stage, documents, documents * 10, fraction)
    # 31 seconds for a quarter of the input: three times as long for the rest.
    assert log.getvalue() == (
        "tokenizing: 310 documents, 3,100 tokens, 10 documents/s, 100 tokens/s, "
        "25.0% done, 0:01:33 left\n"
    )
    assert terminal.getvalue().count("\r\x1b[K") == 3
    assert terminal.getvalue().endswith(
        "writing train: 50 documents, 500 tokens, 50 documents/s, 500 tokens/s, "
        "50.0% done, 0:00:01 left"
    )


def test_progress_without_tokens_or_a_known_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log = io.StringIO()
    line = ProgressLine(lambda: 0.0, log)
    clock[0] = 140.0
    line("looking", 4000)
    assert log.getvalue() == "looking: 4,000 documents, 100 documents/s\n"
