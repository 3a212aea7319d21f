# SPDX-License-Identifier: Apache-2.0
"""Texts that repeat, or nearly repeat, an earlier one of this source or of others.

Near-duplicates are found by MinHash signatures and locality-sensitive hashing. For a similarity of
0.8 (18 bands of 7 values), datasketch's own index, dictionaries of sets, was measured to take 6 kB
a text, 28 GB for the notes of MIMIC-III and IV; the arrays here take about 350 bytes, the signature
included, and 440 while they grow.
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile

import numpy as np

from bcmb_jax.data.clean.placeholders import PLACEHOLDER
from bcmb_jax.data.ingest.record import DIGEST_BYTES, REPEATED, digest
from bcmb_jax.data.secret import check_value, keyed_hash, purpose_key
from bcmb_jax.errors import InputError

NEARLY_REPEATED = "nearly repeats an earlier text"
FINGERPRINTS = "fingerprints.npz"
PERMUTATIONS = 128

_AGAIN = "prepare it again with --exact-duplicates or --near-duplicates"
_PROBE = "The quick brown fox jumps over the lazy dog."

_WORD = re.compile(r"\w+")
_SHINGLE_WORDS = 5  # words in a row are an element of the sets that are compared
_SHINGLES_AT_ONCE = 4096  # hashed: a few MB for a text of any length

_RECALL = 0.95  # of pairs right at the threshold must share a band
_LONGEST_CHAIN = 256
_LINKED_AT_ONCE = 1 << 12  # signatures: 4 MB of products
_FIRST_CAPACITY = 1024


class Duplicates:
    """Digests of the texts met so far and, if a similarity `near` is asked for, signatures.

    White space does not count, nor does the content of a placeholder, so a note is found again in a
    release that was de-identified differently. A text that is kept, or is in a folder of `against`,
    takes up to 150 bytes of memory (a set of digests), with signatures up to 600.

    Args:
      near: the Jaccard similarity from which on a text is a duplicate; None: only equal ones are.
      secret: without it, whoever has a text could tell from the fingerprints that it is in this
        source, and search for the number in a text that is short but for it. Empty: none.
      earlier_secret: with which folders of `against` may have been made, beside those without one.
    """

    def __init__(
        self,
        near: float | None = None,
        against: Sequence[Path] = (),
        secret: bytes = b"",
        earlier_secret: bytes = b"",
    ):
        self._secrets = {check_value(s): s for s in (b"", earlier_secret, secret)}
        self._near = near
        self._own = _Texts(near, secret)
        self._texts = {check_value(secret): self._own}
        for folder in against:
            self._load(folder)

    def find(self, text: str) -> str | None:
        """Return why the text is a duplicate; if it is none, remember it and return None."""
        text = " ".join(PLACEHOLDER.sub("___", text).split())
        for texts in self._texts.values():
            if texts is not self._own and (reason := texts.find(text)):
                return reason
        return self._own.find(text, remember=True)

    def save(self, folder: Path) -> None:
        """Write the fingerprints of this source's texts, to compare later sources with.

        Without a secret, whoever has a text can tell from them that it is in this source: they are
        as confidential as the tokens beside them.
        """
        np.savez(folder / FINGERPRINTS, **self._own.arrays())

    def _load(self, folder: Path) -> None:
        file = folder / FINGERPRINTS
        if not file.is_file():
            raise InputError(f"{folder} has no {FINGERPRINTS} to compare with: {_AGAIN}")
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                if any(x.compress_type != ZIP_STORED for x in arrays.zip.infolist()):
                    raise ValueError("packed, which is not how it was written")
                check = str(arrays["secret"]) if "secret" in arrays else None
                if check not in self._secrets:
                    raise InputError(
                        "was made with another secret, or one where none is given now: name its "
                        f"file with --secret-file, or {_AGAIN}"
                    )
                if self._near is not None and "signatures" not in arrays:
                    raise InputError(
                        f"has no signatures: prepare {folder} again with --near-duplicates"
                    )
                if check not in self._texts:
                    self._texts[check] = _Texts(self._near, self._secrets[check])
                self._texts[check].load(arrays)
        except (
            OSError,
            EOFError,
            MemoryError,
            BadZipFile,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            problem = error if isinstance(error, InputError) else f"is damaged: {_AGAIN}"
            raise InputError(f"{file} {problem}") from error


class _Texts:
    """Digests and, with a similarity, signatures of texts; all made with one secret."""

    def __init__(self, near: float | None, secret: bytes):
        self._near, self._secret = near, secret
        self._digests: set[bytes] = set()
        self._own = bytearray()  # the digests of texts that were remembered, in order
        self._signer = None if near is None else Signer(purpose_key(secret, "signatures"))
        self._index = None if near is None else Index(near)
        self._loaded = 0

    def find(self, text: str, *, remember: bool = False) -> str | None:
        """Return why the text repeats one of these; if it does not, add it where asked to."""
        known = digest(text)
        if self._secret:
            known = keyed_hash(self._secret, "digests", text)[:DIGEST_BYTES]
        if known in self._digests:
            return REPEATED
        if self._signer and self._index:
            signature = self._signer.sign(text)
            if self._index.find(signature):
                return f"{NEARLY_REPEATED} (Jaccard ≥ {self._near:g})"
            if remember:
                self._index.add(signature[None])
        if remember:
            self._digests.add(known)
            self._own += known
        return None

    def arrays(self) -> dict[str, Any]:
        """Return what a file holds of the texts that were remembered."""
        arrays: dict[str, Any] = {
            "digests": np.frombuffer(self._own, np.uint8).reshape(-1, DIGEST_BYTES)
        }
        if self._secret:
            arrays["secret"] = np.array(check_value(self._secret))
        if self._signer and self._index:
            arrays["signatures"] = self._index.signatures[self._loaded :]
            arrays["probe"] = self._signer.sign(_PROBE)  # changes with the way of signing
        return arrays

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add the texts of a file.

        Raises:
          InputError: the signatures were made otherwise.
        """
        digests = _rows(arrays["digests"], DIGEST_BYTES)
        self._digests.update(row.tobytes() for row in digests)
        if self._signer is None or self._index is None:
            return
        if not np.array_equal(arrays["probe"], self._signer.sign(_PROBE)):
            raise InputError(f"was made by another version: {_AGAIN}")
        self._index.add(_rows(arrays["signatures"], PERMUTATIONS))
        self._loaded = len(self._index.signatures)


def _rows(array: np.ndarray, width: int) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != width:
        raise ValueError
    return array


class Signer:
    """MinHash signatures: the lowest 8 bits of each of 128 minima (Li & König 2010).

    The share of equal values estimates the Jaccard similarity of two texts, with a standard error
    of 0.035 at 0.8.

    Args:
      key: what a text is signed with; empty: whoever has the text can sign it.
    """

    def __init__(self, key: bytes = b"") -> None:
        try:
            from datasketch import MinHash
        except ImportError as error:
            raise InputError(
                "near-duplicates need datasketch: pip install 'bcmb-jax[dedup]'"
            ) from error
        # Spelled out, because datasketch 2 changed its default; zlib's hash takes a third of the
        # time of the usual SHA-1, and the scheme mixes what it is given.
        hash = _keyed(key) if key else zlib.crc32
        self._minhash: Any = MinHash(PERMUTATIONS, hashfunc=hash, scheme="affine32")

    def sign(self, text: str) -> np.ndarray:
        """Return `[128]` uint8, from every five words in a row, without case and punctuation."""
        words = [word.encode() for word in _WORD.findall(text.lower())]
        line = b" ".join(words)
        ends = list(accumulate((len(word) + 1 for word in words), initial=0))
        if len(words) < _SHINGLE_WORDS:  # a short text is one element
            ends = [0] * _SHINGLE_WORDS + [len(line) + 1]
        elements = [line[a : b - 1] for a, b in zip(ends, ends[_SHINGLE_WORDS:], strict=False)]
        self._minhash.clear()
        for first in range(0, len(elements), _SHINGLES_AT_ONCE):
            self._minhash.update_batch(elements[first : first + _SHINGLES_AT_ONCE])
        return np.asarray(self._minhash.hashvalues).astype(np.uint8)


def _keyed(key: bytes) -> Callable[[bytes], int]:
    """Return a hash of 32 bits with a key; BLAKE2's takes a third of the time of an HMAC."""
    empty = hashlib.blake2b(digest_size=4, key=key)

    def keyed(element: bytes) -> int:
        state = empty.copy()
        state.update(element)
        return int.from_bytes(state.digest(), "little")

    return keyed


class Index:
    """Signatures in the order of adding, each chained with those that share a band of values.

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
        """All signatures, `[texts, 128]` uint8, in the order in which they were added."""
        return self._signatures[1 : self._count + 1]

    def find(self, signature: np.ndarray) -> bool:
        """Return whether an earlier signature has as many equal values as the threshold asks."""
        lanes = np.arange(self._bands)
        nodes = self._heads[self._slots(signature[None])[0]]
        chains: list[np.ndarray] = []
        while len(chains) < _LONGEST_CHAIN and nodes.any():
            lanes, nodes = lanes[nodes > 0], nodes[nodes > 0]
            chains.append(nodes)
            nodes = self._next[nodes, lanes]
        if not chains:
            return False
        equal = self._signatures[np.unique(np.concatenate(chains))] == signature
        return bool(np.count_nonzero(equal, axis=1).max() >= self._enough)

    def add(self, signatures: np.ndarray) -> None:
        """Add signatures, `[texts, 128]` uint8."""
        kept, count = self.signatures, self._count + len(signatures)
        if count >= len(self._signatures):
            self._allocate(1 << count.bit_length())
            self._signatures[1 : len(kept) + 1] = kept
            self._link(1, len(kept) + 1)
        self._signatures[self._count + 1 : count + 1] = signatures
        self._link(self._count + 1, count + 1)
        self._count = count

    def _allocate(self, capacity: int) -> None:
        """Make empty chains; signature i is node i, from 1, and every chain ends at 0."""
        self._shift = np.uint64(64 - (capacity.bit_length() - 1))
        self._offsets = np.arange(self._bands, dtype=np.uint64) * np.uint64(capacity)
        self._signatures = np.zeros((capacity, PERMUTATIONS), np.uint8)
        self._next = np.zeros((capacity, self._bands), np.uint32)
        self._heads = np.zeros(self._bands * capacity, np.uint32)

    def _slots(self, signatures: np.ndarray) -> np.ndarray:
        """Return for each signature the heads of its chains, `[texts, bands]`."""
        bands, rows = self._factors.shape
        values = signatures[:, : bands * rows].reshape(-1, bands, rows)
        hashed = (values * self._factors).sum(-1, dtype=np.uint64)  # multiply and shift, mod 2^64
        slots: np.ndarray = (hashed >> self._shift) + self._offsets
        return slots

    def _link(self, first: int, last: int) -> None:
        for start in range(first, last, _LINKED_AT_ONCE):
            stop = min(start + _LINKED_AT_ONCE, last)
            slots = self._slots(self._signatures[start:stop]).ravel()
            order = np.argsort(slots, kind="stable")
            slots, (nodes, lanes) = slots[order], np.divmod(order, self._bands)
            nodes += start
            same = slots[1:] == slots[:-1]  # head as the node before: follows it in the chain
            earlier = self._heads[slots]
            earlier[1:][same] = nodes[:-1][same]
            self._next[nodes, lanes] = earlier
            latest = np.append(~same, True)
            self._heads[slots[latest]] = nodes[latest]


def _choose_bands(threshold: float) -> tuple[int, int]:
    """Return (bands, values in each): the fewest bands that find enough pairs.

    The more values in a band, the fewer texts are compared in vain.
    """
    for rows in range(PERMUTATIONS, 0, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    raise ValueError(f"no bands find a similarity of {threshold}")
