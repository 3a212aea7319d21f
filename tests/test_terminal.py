# SPDX-License-Identifier: Apache-2.0
"""The progress line, on a terminal and in a log."""

import io

from bcmb_jax.terminal import Display


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


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_line_rewrites_itself(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = Terminal()
    display = Display(stream=stream)
    display.progress(0.5, "step {1}")
    display.progress(0.6, "too soon")
    clock[0] += 1
    display.progress(2.0, "over")
    display.say("stays")
    display.progress(0.9, "a new stage, at once")
    display.close()
    assert "\n" not in stream.getvalue().split("stays\n")[0]
    parts = stream.getvalue().replace("\n", "\r").split("\r")
    lines = [line for part in parts if (line := part.strip(" #█"))]
    assert lines == ["50.0%  step {1}", "100.0%  over", "stays"]
    assert parts[-1] == ""
    assert not parts[-2].strip()


def test_the_time_that_is_left_follows_from_what_this_run_did(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    stream = io.StringIO()
    display = Display(stream=stream)
    display.progress(0.5, "resumed")
    clock[0] += 60
    display.progress(0.75, "half of the rest")
    clock[0] += 60
    display.progress(None, "no end in sight")
    assert stream.getvalue().splitlines() == [
        " 50.0%  resumed",
        " 75.0%  half of the rest, 01:00 left",
        "no end in sight",
    ]
