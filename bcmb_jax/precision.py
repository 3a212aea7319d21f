# SPDX-License-Identifier: Apache-2.0
"""In which dtype matrix products run."""

import jax.numpy as jnp

from bcmb_jax.device import cpu_multiplies_bf16, on_cpu
from bcmb_jax.errors import InputError

DTYPES = {"bf16": jnp.dtype(jnp.bfloat16), "fp32": jnp.dtype(jnp.float32)}


def compute_dtype(precision: str) -> jnp.dtype:
    """The dtype of `"bf16"` or `"fp32"`; empty chooses bf16 wherever the hardware multiplies it.

    Parameters, moments, residual stream, norms, softmax and loss are fp32 either way.

    Raises:
      InputError: another name.
    """
    if not precision:
        slow = on_cpu() and not cpu_multiplies_bf16()
        precision = "fp32" if slow else "bf16"
    if precision not in DTYPES:
        raise InputError(f"precision {precision!r} is not 'bf16' or 'fp32' (or empty to choose)")
    return DTYPES[precision]
