# SPDX-License-Identifier: Apache-2.0
"""Results of a benchmark as JSON, as a Markdown table and as a plot, with their machine."""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bcmb_jax.benchmark.timing import Times
from bcmb_jax.device import DTYPES, commit, describe_device, on_cpu
from bcmb_jax.files import REPORTED_PACKAGES, versions, write_json
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.training.metrics import mfu

OURS = "bcmb_jax"


class Setting(NamedTuple):
    """Options that all cases of one benchmark share.

    Attributes:
      size: the name of `config`.
      precision: a key of `DTYPES`, for JAX and PyTorch.
      implementation: the implementation of our attention.
      candidates: PyTorch's candidates for the baseline; none: no comparison.
      rounds, repeats: as in `timing.time_interleaved`.
    """

    size: str
    config: ModelConfig
    precision: str
    implementation: str
    candidates: Sequence[str]
    rounds: int
    repeats: int

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of matrix products."""
        return DTYPES[self.precision]

    def metadata(self) -> dict[str, Any]:
        """Return what the report records of these options."""
        return {
            "size": self.size,
            "precision": self.precision,
            "attention": self.implementation,
        }


def result(
    case: str,
    tokens: int,
    times: dict[str, Times],
    *,
    flops: float = 0.0,
    ceiling: float = 0.0,
    devices: int = 1,
    **metadata: Any,
) -> dict[str, Any]:
    """Return one line of a report from the times of `OURS` and of baselines: the fastest counts.

    Args:
      tokens: true tokens (no padding) of each call.
      flops: model FLOPs of a call.
      ceiling: the FLOP/s of a device, which is all cores of a CPU.
      devices: the number of devices that share a call.
      metadata: added as it is.
    """
    ours = statistics.median(times[OURS])
    line: dict[str, Any] = {
        "case": case,
        "tokens": tokens,
        "tokens_per_second": tokens / ours,
        "seconds": ours,
        "seconds_least": min(times[OURS]),
        "seconds_most": max(times[OURS]),
        "calls": len(times[OURS]),
        "devices": devices,
        "peer": None,
        "peer_tokens_per_second": None,
        "ratio": None,
    }
    medians = {name: statistics.median(x) for name, x in times.items() if name != OURS}
    if medians:
        baseline = min(medians, key=medians.__getitem__)
        theirs = medians[baseline]
        line |= {
            "peer": baseline,
            "peer_tokens_per_second": tokens / theirs,
            "ratio": theirs / ours,
            "ratio_of_least": min(times[baseline]) / min(times[OURS]),
            "peer_seconds": theirs,
            "peer_seconds_least": min(times[baseline]),
            "peer_seconds_most": max(times[baseline]),
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


def report(results: Sequence[Mapping[str, Any]], command: Sequence[str]) -> dict[str, Any]:
    """Return the report of a run, for JSON."""
    devices = os.environ.get("JAX_NUM_CPU_DEVICES")
    variables = [f"JAX_NUM_CPU_DEVICES={devices}"] if devices else []
    return {
        "command": " ".join((*variables, "python", *command)),
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


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Plot tokens a second of every case, ours above the baseline's, with the spread."""
    from matplotlib.figure import Figure

    lines = list(reversed(report["results"]))
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for prefix, name, shift, colour in (("", "bcmb_jax", 0.2, "C0"), ("peer_", "peer", -0.2, "C7")):
        shown = [(i, x) for i, x in enumerate(lines) if f"{prefix}seconds" in x]
        if not shown:
            continue
        speed = [x["tokens"] / x[f"{prefix}seconds"] for _, x in shown]
        least = [x["tokens"] / x[f"{prefix}seconds_most"] for _, x in shown]
        most = [x["tokens"] / x[f"{prefix}seconds_least"] for _, x in shown]
        error = [
            [s - low for s, low in zip(speed, least, strict=True)],
            [high - s for s, high in zip(speed, most, strict=True)],
        ]
        places = [i + shift for i, _ in shown]
        axes.barh(places, speed, 0.38, xerr=error, color=colour, label=name, capsize=2)
    axes.set_yticks(range(len(lines)), [x["case"] for x in lines], fontsize=8)
    axes.set_xlabel("true tokens a second")
    axes.set_xscale("log")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def write(report: Mapping[str, Any], output: Path) -> list[Path]:
    """Write `output` (JSON), and beside it the table and the plot."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, report)
    table, picture = output.with_suffix(".md"), output.with_suffix(".png")
    table.write_text(markdown(report))
    plot(report, picture)
    return [output, table, picture]
