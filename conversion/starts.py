# SPDX-License-Identifier: Apache-2.0
"""Starting points by name: the checkpoints that BioClinical ModernBERT was continued from."""

from pathlib import Path
from typing import NamedTuple

from bcmb_jax.data.hub import single_file


class Start(NamedTuple):
    """A Composer checkpoint on the Hugging Face hub."""

    hub_id: str
    file: str


# The last of the stable phase, before the learning rate decays (the recipe's `load_path`).
STARTS = {
    "modernbert-base:stable": Start(
        "answerdotai/ModernBERT-base-training-checkpoints",
        "context-extension/ep0-ba52988-rank0.pt",
    ),
    "modernbert-large:stable": Start(
        "answerdotai/ModernBERT-large-training-checkpoints",
        "context-extension/ep0-ba49552-rank0.pt",
    ),
}


def fetch(name: str) -> Path:
    """The file of a starting point, from the local cache or fetched into it.

    Raises:
      InputError: it is not in the cache and there is no network; says how to bring it.
    """
    start = STARTS[name]
    return single_file(start.hub_id, start.file)
