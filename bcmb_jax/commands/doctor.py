# SPDX-License-Identifier: Apache-2.0
"""Look over this installation and this machine."""

import argparse
from pathlib import Path

from bcmb_jax.commands import checks

SOMETHING_IS_WRONG = 1
"""Exit status."""


def main(options: argparse.Namespace) -> int:
    """Print a line for each finding; return 1 if one is wrong, else 0."""
    # jax is imported last: it refuses to be where the versions do not fit.
    steps = (
        checks.versions,
        checks.torch_extra,
        checks.memory,
        lambda: checks.disk(options.workdir),
        lambda: checks.gpu(Path("/proc")),
        checks.device,
        checks.program_cache,
        checks.self_test,
    )
    wrong = 0
    for step in steps:
        finding = step()
        print(finding, flush=True)
        wrong += finding.state == "wrong"
        if step is checks.device and finding.state == "wrong":
            break  # nothing can be computed
    print(f"{wrong} wrong" if wrong else "nothing is wrong")
    return SOMETHING_IS_WRONG if wrong else 0
