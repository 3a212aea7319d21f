# SPDX-License-Identifier: Apache-2.0
"""One line of a benchmark: what ran, how fast, and beside whom."""

import statistics
from typing import Any

import jax

from bcmb_jax.benchmark.timing import Times
from bcmb_jax.device import on_cpu
from bcmb_jax.training.metrics import mfu

OURS = "bcmb_jax"


def result(
    case: str,
    tokens: int,
    times: dict[str, Times],
    *,
    flops: float = 0.0,
    ceiling: float = 0.0,
    devices: int = 1,
    **facts: Any,
) -> dict[str, Any]:
    """From the times of `OURS` and of peers, of which the fastest counts.

    Args:
      tokens: true tokens (no padding) that each call works on.
      flops: model FLOPs of a call; ceiling: the FLOP/s of a device, which is all cores of a CPU.
      devices: that share a call.
      facts: added as they are.
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
        peer = min(medians, key=medians.__getitem__)
        theirs = medians[peer]
        line |= {
            "peer": peer,
            "peer_tokens_per_second": tokens / theirs,
            "ratio": theirs / ours,
            "ratio_of_least": min(times[peer]) / min(times[OURS]),
            "peer_seconds": theirs,
            "peer_seconds_least": min(times[peer]),
            "peer_seconds_most": max(times[peer]),
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
    return line | facts
