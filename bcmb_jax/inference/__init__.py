# SPDX-License-Identifier: Apache-2.0
"""Strings in; vectors, words, labels or entities out."""
