# SPDX-License-Identifier: Apache-2.0
"""Experiments: `base` has every key, the others are differences from it."""
