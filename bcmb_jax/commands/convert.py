# SPDX-License-Identifier: Apache-2.0
"""Convert a model between formats, or compare one with transformers."""

import argparse
import functools
import logging
import sys

from bcmb_jax import hub
from bcmb_jax.programs import keep_programs
from bcmb_jax.terminal import Display, say_next
from conversion import torch_models
from conversion.convert import SERVING, convert, convert_for_serving
from conversion.verify import LogitDifference, compare_with_transformers
from conversion.weights import read

NEXT = {
    "huggingface": 'bcmb fill-mask --model {} --text "The lung is [MASK]."',
    "orbax": "bcmb train --config continue:SHARDS --config.init_from={}",
    "composer": "give the .pt in {} to Composer as load_path",
}


def main(options: argparse.Namespace) -> None:
    """Convert or compare, and print how equal the two are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells every file it writes
    keep_programs()
    display = Display(stream=sys.stdout)  # what goes wrong stands alone on stderr
    if options.verify:
        torch_models.import_torch("--verify")
        hub.fetch(options.verify, online=options.online, token_file=options.hub_token_file)
        weights = read(options.verify, model_config=options.model_config)
        weights = weights._replace(opt_state=None)
        report(compare_with_transformers(weights, weights.folder, display.say))
        return
    hub.fetch(options.input, online=options.online, token_file=options.hub_token_file)
    if options.to in SERVING:
        chosen = {"pooling": options.pooling} if options.pooling else {}
        chosen |= {"int8": True} if options.dtype else {}
        difference = convert_for_serving(
            options.input,
            functools.partial(SERVING[options.to], **chosen),
            options.output,
            overwrite=options.overwrite,
            model_config=options.model_config,
            license=options.license,
            say=display.say,
        )
        compared = difference or "outputs were not compared: pip install sentence-transformers"
        print(f"{options.output}: {compared}")
        say_next("run the example in {}/README.md", options.output)
        return
    tensors, logits = convert(
        options.input,
        options.to,
        options.output,
        overwrite=options.overwrite,
        model_config=options.model_config,
        dtype=options.dtype,
        license=options.license,
        say=display.say,
    )
    print(f"{options.output}: {tensors.tensors} tensors, every bit equal")
    print(f"worst tensor difference: {tensors.difference:.2e} ({tensors.worst})")
    report(logits)
    say_next(NEXT[options.to], options.output)


def report(logits: LogitDifference | None) -> None:
    """Print how far the logits are from transformers', or that they were not compared."""
    if logits is None:
        print("logits were not compared with transformers': pip install 'bcmb-jax[torch]' for that")
        return
    print(
        f"worst logit difference from transformers: {logits.difference:.2e} (on {logits.kind} "
        f"input); in float64 {logits.error:.2e}, where transformers' own rounding is "
        f"{logits.their_error:.2e}"
    )
    print(
        "both with our rotary frequencies; transformers' own, rounded otherwise, change its logits "
        f"by {logits.frequencies:.2e}"
    )
