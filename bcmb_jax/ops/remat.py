# SPDX-License-Identifier: Apache-2.0
"""Rematerialisation: which activations of a layer the backward pass keeps, and which it recomputes.

Activations carry names (`jax.ad_checkpoint.checkpoint_name`); a layer that runs under `checkpoint`
saves those of its names and its input.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

from bcmb_jax.ops import cpu

QKV, ATTENTION_OUTPUT = "qkv", "attention_output"
"""Operands of attention kernels; their outputs and log-sum-exps."""
STREAM, MLP_INPUT, PRODUCT_INPUT = "stream", "mlp_input", "product_input"
"""The residual stream after a branch; what GeGLU takes; what norms and GeGLU give to products."""

SAVED_ACTIVATIONS = (QKV, ATTENTION_OUTPUT, STREAM, MLP_INPUT)
"""All that only a matrix product or attention could bring back; norms, GELU and dropout are
computed again."""
SAVED_ACTIVATIONS_ON_ACCELERATORS = (*SAVED_ACTIVATIONS, PRODUCT_INPUT)
"""A third more bytes, and neither norms nor GELU are computed again but inside the kernels of their
gradients."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def saved_activations(remat: bool) -> tuple[str, ...]:
    """Return the names that a layer saves; with `remat` only what its attention gave."""
    if remat:
        return (ATTENTION_OUTPUT,)
    if cpu.recomputes_elementwise():
        return SAVED_ACTIVATIONS
    return SAVED_ACTIVATIONS_ON_ACCELERATORS


def checkpoint(
    run: Callable[Arguments, Result], saved: tuple[str, ...]
) -> Callable[Arguments, Result]:
    """Return `run`, whose backward pass recomputes all but its arguments and the names `saved`."""

    def checkpointed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        policy = jax.checkpoint_policies.save_only_these_names(*saved)
        with cpu.calls(inlined=True):
            result: Result = jax.checkpoint(run, policy=policy)(*args, **kwargs)
        return result

    return checkpointed
