# SPDX-License-Identifier: Apache-2.0
"""Write tables and plots of results beside the paper's."""

import argparse

from bcmb_jax.evaluation.report import write
from bcmb_jax.evaluation.results import read_results
from bcmb_jax.terminal import say_next


def main(options: argparse.Namespace) -> None:
    """Write them, and print the names of the files."""
    results = read_results(options.results, options.names)
    print("\n".join(map(str, write(results, options.output))))
    say_next("read {}", options.output / "tables.md")
