# SPDX-License-Identifier: Apache-2.0
"""Continued pretraining: the loop, its start, checkpoints, validation and metrics."""
