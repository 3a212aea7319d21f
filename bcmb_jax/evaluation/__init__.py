# SPDX-License-Identifier: Apache-2.0
"""Scoring of models: one way for every model, so that a number means one thing."""
