# SPDX-License-Identifier: Apache-2.0
"""Real documents to work on, from prepared shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bcmb_jax.data.shards import open_shards
from bcmb_jax.errors import InputError

LONGEST = 8192


class Documents(NamedTuple):
    """Attributes:
    name: of the shards.
    of_steps: for each step the tokens of its documents, `[N]` int32 with the special ones.
    """

    name: str
    of_steps: list[list[np.ndarray]]

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(document) for step in self.of_steps for document in step])


def first_documents(folders: Sequence[Path], *, per_step: int, steps: int) -> Documents:
    """The first training documents of the shards, cut at `LONGEST` tokens.

    Raises:
      InputError: there are not so many.
    """
    opened = [open_shards(folder / "train") for folder in folders]
    found: list[np.ndarray] = []
    wanted = per_step * steps
    for shards in opened:
        special = shards.index["tokenizer"]["special"]
        for i in range(min(len(shards), wanted - len(found))):
            body = shards.read(i, 0, min(int(shards.lengths[i]), LONGEST - 2))
            found.append(np.array([special["cls"], *body, special["sep"]], np.int32))
    if len(found) < wanted:
        raise InputError(
            f"{wanted} documents are wanted, {len(found)} are there: fewer --documents or --steps"
        )
    of_steps = [found[i : i + per_step] for i in range(0, wanted, per_step)]
    return Documents(", ".join(x.name for x in opened), of_steps)
