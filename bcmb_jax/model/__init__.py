# SPDX-License-Identifier: Apache-2.0
"""ModernBERT in Flax NNX, used functionally (`nnx.split`, `nnx.merge`, plain `jax.jit`).

Dimension key of shapes in signatures: `B` rows, `L` row length, `D` width, `H` heads, `K` head
size, `F` MLP width, `V` vocabulary, `P` predicted positions of a row, `N` vectors of a row.
"""
