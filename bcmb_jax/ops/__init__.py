# SPDX-License-Identifier: Apache-2.0
"""Mathematical operations whose gradients are written by hand: one operation a module.

`triton` holds what the GPU kernels share, `cpu` everything that depends on XLA's CPU backend, and
`remat` which activations the backward pass recomputes.

Dimension key of shapes in signatures: `B` rows, `L` row length, `D` width, `H` heads, `K` head
size, `half` of it, `F` MLP width, `V` vocabulary, `P` predicted positions of a row, `T` tokens of
a Triton program.
"""
