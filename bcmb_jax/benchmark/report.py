# SPDX-License-Identifier: Apache-2.0
"""Results of a benchmark as JSON, as a Markdown table and as a plot, with their machine."""

import os
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bcmb_jax.benchmark.timing import OURS, Setting, Times
from bcmb_jax.benchmark.torch_baselines import Baseline, LabelledBatches
from bcmb_jax.device import commit, describe_device, on_cpu
from bcmb_jax.files import REPORTED_PACKAGES, new_file, versions, write_json, write_text
from bcmb_jax.model.cost import forward_flops_per_token
from bcmb_jax.plotting import COLOURS, STYLE, two_digits
from bcmb_jax.sharing import shared_command
from bcmb_jax.training.metrics import mfu

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = dict[str, Any]


def time_model(
    setting: Setting,
    case: str,
    run: Callable[[], object],
    baseline: Baseline,
    positions: int,
    theirs: LabelledBatches,
    *,
    predicted: float = 0.0,
    passes: int = 1,
    devices: int = 1,
) -> Result:
    """Time a whole model beside its baseline, and return one line of a report.

    Args:
      positions: tokens and padding that `run` computes.
      theirs: the batches of the baseline, a document a row.
      predicted: the share of the tokens that the decoder predicts.
      passes: FLOPs of a call over those of a forward pass.
      devices: the number of devices that share a call.
    """
    times, ceiling = setting.time({OURS: run, **baseline.run})
    lengths = np.concatenate([(batch.segment_ids > 0).sum(1) for batch, _ in theirs])
    lengths = lengths[lengths > 0]
    tokens = int(lengths.sum())
    return result(
        case,
        tokens,
        times,
        ceiling,
        flops=passes * tokens * forward_flops_per_token(setting.config, lengths, predicted),
        devices=devices,
        peers=baseline.competed,
        documents=len(lengths),
        filled=tokens / positions,
        peer_filled=tokens / sum(batch.tokens.size for batch, _ in theirs),
        **setting.metadata(),
    )


def result(
    case: str,
    tokens: int,
    times: Mapping[str, Times],
    ceiling: float = 0.0,
    *,
    flops: float = 0.0,
    devices: int = 1,
    **metadata: object,
) -> Result:
    """Return one line of a report from the times of `OURS` and of baselines: the fastest counts.

    Args:
      tokens: true tokens (no padding) of each call.
      ceiling: the FLOP/s of a device, which is all cores of a CPU.
      flops: model FLOPs of a call.
      devices: the number of devices that share a call.
      metadata: added as it is.
    """
    ours = statistics.median(times[OURS])
    line: Result = {
        "case": case,
        "tokens": tokens,
        "tokens_per_second": tokens / ours,
        **_spread("", times[OURS]),
        "calls": len(times[OURS]),
        "devices": devices,
        "peer": None,
        "peer_tokens_per_second": None,
        "ratio": None,
    }
    medians = {name: statistics.median(x) for name, x in times.items() if name != OURS}
    if medians:
        baseline = min(medians, key=medians.__getitem__)
        line |= {
            "peer": baseline,
            "peer_tokens_per_second": tokens / medians[baseline],
            "ratio": medians[baseline] / ours,
            "ratio_of_least": min(times[baseline]) / min(times[OURS]),
            **_spread("peer_", times[baseline]),
        }
    if flops:
        if not on_cpu():
            ceiling *= devices
        line |= {
            "flops_per_second": flops / ours,
            "matmul_ceiling": ceiling,
            "share_of_matmul_ceiling": flops / ours / ceiling,
            "mfu": mfu(1 / ours, flops, jax.devices()[0].device_kind, devices),
        }
    return line | metadata


def _spread(prefix: str, times: Times) -> dict[str, float]:
    return {
        f"{prefix}seconds": statistics.median(times),
        f"{prefix}seconds_least": min(times),
        f"{prefix}seconds_most": max(times),
    }


def report(
    results: Sequence[Mapping[str, Any]], command: Sequence[str], data: Collection[Path] = ()
) -> dict[str, Any]:
    """Return the report of a run, for JSON; `data` is its input."""
    devices = os.environ.get("JAX_NUM_CPU_DEVICES")
    variables = [f"JAX_NUM_CPU_DEVICES={devices}"] if devices else []
    return {
        "command": shared_command([*variables, *command], data),
        "date": time.strftime("%Y-%m-%d"),
        "device": describe_device(),
        "versions": versions(*REPORTED_PACKAGES),
        "commit": commit(),
        "results": list(results),
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Return a table with the spread of every figure, and where it was measured."""
    machine = report["device"]
    lines = [
        "| case | calls | tokens/s | of the ceiling | peer | its tokens/s | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in report["results"]:
        devices = f", {line['devices']} devices" if line["devices"] > 1 else ""
        cells = [line["case"] + devices, str(line["calls"]), _speed(line, ""), "", "", "", ""]
        if "share_of_matmul_ceiling" in line:
            cells[3] = f"{line['share_of_matmul_ceiling']:.0%}"
            cells[3] += f" (MFU {line['mfu']:.0%})" if line["mfu"] else ""
        if line["peer"]:
            cells[4:] = [line["peer"], _speed(line, "peer_"), f"{line['ratio']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    where = f"{machine['count']} x {machine['kind']}"
    if "cores" in machine:
        bf16 = "" if machine["multiplies_bf16"] else ", no bf16 instructions"
        where = f"{machine['kind']}, {machine['cores']} cores{bf16}"
    packages = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    code = f"commit {report['commit']}; " if report["commit"] else ""
    about = f"Medians (slowest to fastest call) on {where}; {packages}; {code}{report['date']}."
    if any("share_of_matmul_ceiling" in line for line in report["results"]):
        about += " The ceiling: our large matrix products in the same dtype, in the same run."
    return "\n".join([*lines, "", about, "", f"`{report['command']}`", ""])


def _speed(line: Mapping[str, Any], prefix: str) -> str:
    at = {name: line["tokens"] / line[f"{prefix}seconds{name}"] for name in ("", "_most", "_least")}
    return f"{at['']:,.0f} ({at['_most']:,.0f} to {at['_least']:,.0f})"


def plot(report: Mapping[str, Any], path: Path) -> "Figure":
    """Plot tokens a second of every case, ours above the peer's by name, with the spread.

    The axis is linear and begins at zero, so that a bar's length is its speed.
    The figure is written to `path` and returned.
    """
    import matplotlib
    from matplotlib.figure import Figure

    lines = list(reversed(report["results"]))
    with matplotlib.rc_context(rc=STYLE):
        figure = Figure(figsize=(9, 1.2 + 0.55 * len(lines)))
        axes = figure.subplots()
        peers = sorted({x["peer"] for x in lines if x["peer"]})
        for colour, name in enumerate((OURS, *peers)):
            prefix, shift = ("", 0.2) if name == OURS else ("peer_", -0.2)
            shown = [(i, x) for i, x in enumerate(lines) if name in (OURS, x["peer"])]
            speed, least, most = (
                np.array([x["tokens"] / x[f"{prefix}seconds{which}"] for _, x in shown])
                for which in ("", "_most", "_least")
            )
            error = np.stack([speed - least, most - speed])
            bars = axes.barh(
                [i + shift for i, _ in shown],
                speed,
                0.38,
                xerr=error,
                color=COLOURS[colour % len(COLOURS)],
                label=name,
                capsize=2,
            )
            axes.bar_label(bars, [two_digits(x) for x in speed], padding=4)
        axes.set_yticks(range(len(lines)), [x["case"] for x in lines])
        axes.set_xlabel("true tokens a second")
        axes.margins(x=0.1)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        figure.legend(loc="outside lower center", ncols=2)
        with new_file(path) as out:
            figure.savefig(out, format="png")
    return figure


def write(report: Mapping[str, Any], output: Path) -> list[Path]:
    """Write `output` (JSON), and beside it the table and the plot."""
    table, picture = output.with_suffix(".md"), output.with_suffix(".png")
    write_json(output, report)
    write_text(table, markdown(report))
    plot(report, picture)
    return [output, table, picture]
