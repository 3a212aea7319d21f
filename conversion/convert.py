# SPDX-License-Identifier: Apache-2.0
"""Convert: python -m conversion.convert --input PATH --to huggingface|orbax --output DIR

The input is a Hugging Face folder or hub id, or a checkpoint or workdir of ours (then its newest
checkpoint); the output its weights, without optimizer state, and its tokenizer. The output appears
when it is proven equal to the input, or not at all. Exit status 2: something to correct, told in
one line.
"""

import argparse
import sys
from pathlib import Path

from bcmb_jax.errors import InputError
from conversion.verify import Differences, verify
from conversion.weights import (
    check_free_space,
    publish,
    read,
    refuse_to_lose,
    write_huggingface,
    write_orbax,
)

WRITERS = {"huggingface": write_huggingface, "orbax": write_orbax}
BESIDE_WEIGHTS = 50_000_000  # bytes: tokenizer, JSON, what file systems round up


def convert(source: str, to: str, output: Path, *, overwrite: bool) -> Differences:
    """Convert and verify; `output` is written only if that succeeds."""
    refuse_to_lose(output, overwrite=overwrite)
    weights = read(source)
    size = sum(x.nbytes for x in weights.params.values())
    check_free_space(output, size + BESIDE_WEIGHTS)
    found: list[Differences] = []

    def write(directory: Path) -> None:
        WRITERS[to](weights, directory)
        found.append(verify(weights, directory))

    publish(output, write, overwrite=overwrite)
    return found[0]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m conversion.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, help="folder, workdir or hub id")
    parser.add_argument("--to", required=True, choices=WRITERS)
    parser.add_argument("--output", required=True, type=Path, help="a new folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier conversion")
    options = parser.parse_args(arguments)
    found = convert(options.input, options.to, options.output, overwrite=options.overwrite)
    print(f"{options.output}: {found.tensors} tensors, every bit equal")
    print(f"worst tensor difference: {found.tensor:.2e} ({found.worst_tensor})")
    for peer, (difference, kind) in found.logits.items():
        print(f"worst logit difference from {peer}: {difference:.2e} (on {kind} input)")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
