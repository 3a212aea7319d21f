# SPDX-License-Identifier: Apache-2.0
"""Mathematics whose gradients are written by hand: each module is one operation."""
