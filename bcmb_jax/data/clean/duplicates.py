# SPDX-License-Identifier: Apache-2.0
"""Texts that repeat, or nearly repeat, an earlier one of this source or of others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from bcmb_jax.data.clean.bands import Index
from bcmb_jax.data.clean.minhash import PERMUTATIONS, Signer
from bcmb_jax.data.clean.placeholders import PLACEHOLDER
from bcmb_jax.data.ingest.record import DIGEST_BYTES, REPEATED, digest
from bcmb_jax.errors import InputError

NEARLY = "nearly repeats an earlier text"
FILE = "fingerprints.npz"

_PROBE = "The quick brown fox jumps over the lazy dog."


class Duplicates:
    """The texts met so far, as digests and, if a similarity `near` is asked for, signatures.

    White space does not count, nor does what stands in a placeholder, so a note is found again in
    a release that was de-identified differently. A text that is kept, or was by a folder `against`,
    takes up to 150 bytes of memory (a set of digests), with signatures up to 600.
    """

    def __init__(self, near: float | None = None, against: Sequence[Path] = ()):
        self._near = near
        self._digests: set[bytes] = set()
        self._own = bytearray()  # the digests of this source's texts, in order
        self._signer = None if near is None else Signer()
        self._index = None if near is None else Index(near)
        for folder in against:
            self._load(folder)
        self._earlier = 0 if self._index is None else len(self._index.signatures)

    def find(self, text: str) -> str | None:
        """Why the text is a duplicate; None if it is not, and from then on it is an earlier one."""
        text = " ".join(PLACEHOLDER.sub("___", text).split())
        known = digest(text)
        if known in self._digests:
            return REPEATED
        if self._signer and self._index:
            signature = self._signer.sign(text)
            if self._index.find(signature):
                return f"{NEARLY} (Jaccard ≥ {self._near:g})"
            self._index.add(signature[None])
        self._digests.add(known)
        self._own += known
        return None

    def save(self, folder: Path) -> None:
        """Writes the fingerprints of this source's texts, for later ones to be compared with.

        They tell who has a text that it is in here, and are as confidential as the tokens beside.
        """
        digests = np.frombuffer(self._own, np.uint8).reshape(-1, DIGEST_BYTES)
        arrays: dict[str, Any] = {"digests": digests}
        if self._signer and self._index:
            arrays["signatures"] = self._index.signatures[self._earlier :]
            arrays["probe"] = self._signer.sign(_PROBE)  # tells signatures of another make
        np.savez(folder / FILE, **arrays)

    def _load(self, folder: Path) -> None:
        file = folder / FILE
        again = "prepare it again with --exact-duplicates or --near-duplicates"
        if not file.is_file():
            raise InputError(f"{folder} has no {FILE} to compare with: {again}")
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                digests = _rows(arrays["digests"], DIGEST_BYTES)
                self._digests.update(row.tobytes() for row in digests)
                if self._signer is None or self._index is None:
                    return
                if "signatures" not in arrays:
                    raise InputError(
                        f"{file} has no signatures: prepare {folder} again with --near-duplicates"
                    )
                if not np.array_equal(arrays["probe"], self._signer.sign(_PROBE)):
                    raise InputError(f"{file} was made by another version: {again}")
                self._index.add(_rows(arrays["signatures"], PERMUTATIONS))
        except (OSError, EOFError, BadZipFile, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file} is damaged: {again}") from error


def _rows(array: np.ndarray, width: int) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != width:
        raise ValueError
    return array
