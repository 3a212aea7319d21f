# SPDX-License-Identifier: Apache-2.0
"""Locality-sensitive hashing: the earlier signatures that may agree with a new one.

For a similarity of 0.8 (18 bands of 7 values), datasketch's own index, dictionaries of sets, was
measured to take 6 kB a text, 28 GB for the notes of MIMIC-III and IV; these arrays take about 350
bytes, the signature included, and 440 while they grow.
"""

import hashlib
from math import ceil

import numpy as np

from bcmb_jax.data.clean.minhash import PERMUTATIONS

_FOUND = 0.95  # of pairs right at the threshold must share a band
_LONGEST_CHAIN = 256
_BLOCK = 1 << 12  # signatures linked at a time: 4 MB of products
_FIRST_CAPACITY = 1024


class Index:
    """Signatures in the order they were added, chained with those of the same band of values.

    Only the latest 256 of a chain are compared, or a phrase that all reports begin with would make
    the time quadratic: in such a crowd, a repeat of something much earlier may be missed.
    """

    def __init__(self, threshold: float):
        self._bands, rows = _choose_bands(threshold)
        # Different minima have the same 8 bits once in 256 times.
        share = threshold + (1 - threshold) / 256
        self._enough = ceil(PERMUTATIONS * share - 1e-9)
        drawn = hashlib.shake_128(b"bands").digest(8 * self._bands * rows)
        self._factors = np.frombuffer(drawn, "<u8").reshape(self._bands, rows) | np.uint64(1)
        self._count = 0
        self._allocate(_FIRST_CAPACITY)

    @property
    def signatures(self) -> np.ndarray:
        """`[texts, 128]` uint8, as they were added."""
        return self._signatures[1 : self._count + 1]

    def find(self, signature: np.ndarray) -> bool:
        """Whether an earlier signature has as many equal values as the threshold lets expect."""
        lanes = np.arange(self._bands)
        nodes, chains = self._heads[self._slots(signature[None])[0]], []
        for _ in range(_LONGEST_CHAIN):
            lanes, nodes = lanes[nodes > 0], nodes[nodes > 0]
            if not len(nodes):
                break
            chains.append(nodes)
            nodes = self._next[nodes, lanes]
        if not chains:
            return False
        equal = self._signatures[np.unique(np.concatenate(chains))] == signature
        return bool(np.count_nonzero(equal, axis=1).max() >= self._enough)

    def add(self, signatures: np.ndarray) -> None:
        """Adds `[texts, 128]` uint8."""
        kept, count = self.signatures, self._count + len(signatures)
        if count >= len(self._signatures):
            self._allocate(1 << count.bit_length())
            self._signatures[1 : len(kept) + 1] = kept
            self._link(1, len(kept) + 1)
        self._signatures[self._count + 1 : count + 1] = signatures
        self._link(self._count + 1, count + 1)
        self._count = count

    def _allocate(self, capacity: int) -> None:
        """Signature i is node i, from 1; a chain goes from its head to earlier nodes, and to 0."""
        self._shift = np.uint64(64 - (capacity.bit_length() - 1))
        self._offsets = np.arange(self._bands, dtype=np.uint64) * np.uint64(capacity)
        self._signatures = np.zeros((capacity, PERMUTATIONS), np.uint8)
        self._next = np.zeros((capacity, self._bands), np.uint32)
        self._heads = np.zeros(self._bands * capacity, np.uint32)

    def _slots(self, signatures: np.ndarray) -> np.ndarray:
        """`[texts, bands]`: the head of each one's chains."""
        bands, rows = self._factors.shape
        values = signatures[:, : bands * rows].reshape(-1, bands, rows)
        hashed = (values * self._factors).sum(-1, dtype=np.uint64)  # multiply and shift, mod 2^64
        return (hashed >> self._shift) + self._offsets

    def _link(self, first: int, last: int) -> None:
        for start in range(first, last, _BLOCK):
            slots = self._slots(self._signatures[start : min(start + _BLOCK, last)]).ravel()
            order = np.argsort(slots, kind="stable")
            slots, (nodes, lanes) = slots[order], np.divmod(order, self._bands)
            nodes += start
            same = slots[1:] == slots[:-1]  # as the one before: comes after it in its chain
            earlier = self._heads[slots]
            earlier[1:][same] = nodes[:-1][same]
            self._next[nodes, lanes] = earlier
            latest = np.append(~same, True)
            self._heads[slots[latest]] = nodes[latest]


def _choose_bands(threshold: float) -> tuple[int, int]:
    """(bands, values in each): the fewest bands that find enough; more values, fewer vain looks."""
    for rows in range(PERMUTATIONS, 0, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _FOUND:
            return bands, rows
    raise ValueError(f"no bands find a similarity of {threshold}")
