# SPDX-License-Identifier: Apache-2.0
"""The plot of a benchmark shows speeds as lengths."""

from pathlib import Path

from bcmb_jax.benchmark.report import plot, result
from bcmb_jax.benchmark.timing import OURS


def test_bars_begin_at_zero_and_peers_have_names(tmp_path: Path) -> None:
    cases = [
        result("short", 1000, {OURS: [1.0, 1.1, 1.2], "PyTorch, eager": [9.0, 9.1, 9.2]}),
        result("long", 1000, {OURS: [2.0, 2.1, 2.2], "PyTorch, compiled": [3.0, 3.1, 3.2]}),
        result("alone", 1000, {OURS: [1.5, 1.6, 1.7]}),
    ]
    file = tmp_path / "plot.png"
    figure = plot({"results": cases}, file)
    (axes,) = figure.axes
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 1000 / 1.0
    (legend,) = figure.legends
    names = [x.get_text() for x in legend.get_texts()]
    assert names == [OURS, "PyTorch, compiled", "PyTorch, eager"]
    assert {x.get_text() for x in axes.texts} == {"910", "480", "620", "110", "320"}
    assert file.stat().st_mode & 0o777 == 0o600
