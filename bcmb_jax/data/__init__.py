# SPDX-License-Identifier: Apache-2.0
"""From text to packed batches: ingest, tokenize, shards, plan, loader. No jax in here."""
