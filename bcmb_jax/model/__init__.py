# SPDX-License-Identifier: Apache-2.0
"""ModernBERT in Flax NNX, used functionally (`nnx.split`, `nnx.merge`, plain `jax.jit`).

Dimension key of the package: `B` rows, `L` row length, `D` width or head size, `H` heads, `V`
vocabulary, `K` predicted positions of a row.
"""
