# SPDX-License-Identifier: Apache-2.0
"""Convert a model between formats, and prove the copy equal.

    bcmb convert --input PATH --output DIR [--license TEXT]
        --to huggingface|orbax|composer|sentence-transformers|onnx|stablehlo

The input is a Hugging Face folder, a checkpoint or workdir of ours (then the newest whole
checkpoint), a Composer .pt, hub:OWNER/NAME, or, with --online, a start by name
(docs/conversion.md; for example modernbert-large:stable); the output a new folder. Moments,
counters and hyperparameters go along between Orbax and Composer. The output appears when it is
proven equal to the input, or not at all. The last three formats are for programs that run a
model without this package; for them the outputs are compared, in those programs.

    bcmb convert --verify MODEL

compares a model's outputs with transformers' on this machine and writes nothing.

Exit status 2: something to correct; 65: NaN or infinity in weights or moments; told in one line.
`python -m conversion.convert` is the same command.
"""

import argparse
from pathlib import Path

from bcmb_jax import hub, private
from bcmb_jax.commands.options import Parser

SERVING = ("sentence-transformers", "onnx", "stablehlo")
FORMATS = ("huggingface", "orbax", "composer", *SERVING)
DTYPES = ("float32", "bfloat16", "float16")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments, and check that they fit each other."""
    parser = Parser("bcmb convert", description=__doc__)
    parser.add_argument("--input", metavar="MODEL", help="folder, workdir, .pt, hub:… or name")
    parser.add_argument("--to", choices=FORMATS)
    parser.add_argument("--output", metavar="DIR", type=Path, help="a new folder")
    parser.add_argument("--model-config", metavar="FILE", type=Path, help="for a bare .pt")
    parser.add_argument(
        "--dtype",
        choices=(*DTYPES, "int8"),
        help="to huggingface, default: as the input; to onnx int8, default: float32",
    )
    parser.add_argument(
        "--pooling", choices=("mean", "cls"), help="to sentence-transformers; default: mean"
    )
    parser.add_argument(
        "--license", default="", metavar="TEXT", help="of training data that has none on record"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier conversion")
    parser.add_argument("--verify", metavar="MODEL", help="compare a model; write nothing")
    hub.add_options(parser)
    private.add_option(parser)
    options = parser.parse_args(arguments)
    if options.verify:
        return options
    if not (options.input and options.to and options.output):
        parser.error("--input, --to and --output go together (or give --verify)")
    of_format = {"huggingface": DTYPES, "onnx": ("int8",)}.get(options.to, ())
    if options.dtype and options.dtype not in of_format:
        parser.error("--dtype is for --to huggingface, or int8 for onnx; all else is float32")
    if options.pooling and options.to != "sentence-transformers":
        parser.error("--pooling is for --to sentence-transformers")
    return options
