# SPDX-License-Identifier: Apache-2.0
"""Texts that repeat or nearly repeat an earlier one, in a source and across sources."""

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcmb_jax.data.clean import Cleaner, Cleaning
from bcmb_jax.data.ingest.record import Document, Skipped
from bcmb_jax.errors import InputError
from tests.fixtures.notes import documents, outcomes, prose


def change(text: str, draw: random.Random, count: int) -> str:
    """The text with that many words replaced, far from each other."""
    words = text.split(" ")
    for at in range(20, 20 + count * (len(words) // (count + 1)), len(words) // (count + 1)):
        words[at] = prose(draw, 1)
    return " ".join(words)


def test_exact_duplicates_are_left_out_in_reading_order() -> None:
    texts = ["a b", "c", " a\n\tb ", "A b", "c", "seen by [**Name 1**]", "seen by ___", "ab"]
    cleaner = Cleaner(Cleaning(exact_duplicates=True))
    records = list(cleaner.apply(documents(*texts)))
    repeats = [
        r.line for r in records if r == Skipped("notes.csv", r.line, "repeats an earlier text")
    ]
    assert repeats == [4, 6, 8]
    kept = [record for record in records if isinstance(record, Document)]
    assert kept == [d for d in documents(*texts) if d.line not in repeats]


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_near_duplicates_are_those_above_the_threshold(threshold: float) -> None:
    pytest.importorskip("datasketch")
    # n words changed of 1,200 lose 5 n of the 1,196 elements: J = (1196 - 5 n) / (1196 + 5 n).
    draw = random.Random(4)
    margin = 3 * (threshold * (1 - threshold) / 128) ** 0.5  # three standard errors
    above = int(1196 * (1 - threshold - margin) / (1 + threshold + margin) / 5)
    below = int(1196 * (1 - threshold + margin) / (1 + threshold - margin) / 5) + 1
    notes = [prose(draw, 1200) for _ in range(25)]
    near = [change(note, draw, above) for note in notes]
    far = [change(note, draw, below) for note in notes]
    found = outcomes(Cleaning(near_duplicates=threshold), *notes, *near, *far)
    assert found[:25] == notes
    assert set(found[25:50]) == {f"nearly repeats an earlier text (Jaccard ≥ {threshold})"}
    assert found[50:] == far


def test_different_notes_of_one_template_stay() -> None:
    pytest.importorskip("datasketch")
    draw = random.Random(5)
    frame = [prose(draw, 24) for _ in range(8)]
    # Of 24 + 3 words a section, 20 of 27 elements are the template's own: J is 20 / 34. Of single
    # words, 24 / 30 are the same.
    notes = [" ".join(f"{part} {prose(draw, 3)}" for part in frame) for _ in range(60)]
    again = [re.sub(r"\w+$", "otherwise", note) for note in notes]
    shouted = notes[0].upper() + "!"
    found = outcomes(Cleaning(near_duplicates=0.8), *notes, *again, shouted, notes[1])
    assert found[:60] == notes
    assert len(set(found[60:121])) == 1
    assert found[60].startswith("nearly repeats")
    assert found[121] == "repeats an earlier text"


def test_very_short_texts_are_near_only_if_their_words_are_the_same() -> None:
    pytest.importorskip("datasketch")
    found = outcomes(Cleaning(near_duplicates=0.5), "No fever.", "no fever", "No chills.", "?", "!")
    assert found[0] == "No fever."
    assert found[1].startswith("nearly")
    assert found[2] == "No chills."
    assert found[3] == "?"
    assert found[4].startswith("nearly")


def test_the_index_finds_what_a_plain_comparison_finds() -> None:
    from bcmb_jax.data.clean.duplicates import Index

    draw = np.random.default_rng(6)
    index, seen = Index(0.8), np.zeros((0, 128), np.uint8)
    # Of four values a place, so that many share a band, and chains are long.
    index.add(draw.integers(0, 4, (900, 128), dtype=np.uint8))
    wrong, hits = 0, 0
    for i in range(2000):  # grows twice
        seen = index.signatures
        signature = draw.integers(0, 4, 128, dtype=np.uint8)
        if i % 2:
            source = seen[draw.integers(len(seen))]
            signature = np.where(draw.random(128) < draw.uniform(0.5, 1), source, signature)
        expected = bool(
            ((seen == signature).sum(1) >= 103).any()
        )  # 0.8 * 128, by chance a bit more
        hits += expected
        wrong += index.find(signature) != expected
        index.add(signature[None])
    assert np.array_equal(index.signatures[-1], signature)
    assert len(index.signatures) == 2900
    assert hits > 300
    assert wrong < 0.02 * hits, "18 bands of 7 find 98.6 % of those right at 0.8, more above"


def test_many_added_at_once_are_found_as_if_added_singly() -> None:
    from bcmb_jax.data.clean.duplicates import Index

    draw = np.random.default_rng(7)
    signatures = draw.integers(0, 4, (3000, 128), dtype=np.uint8)  # many share a band
    once, singly = Index(0.5), Index(0.5)
    once.add(signatures[:1500])
    once.add(signatures[1500:])
    for signature in signatures:
        singly.add(signature[None])
    queries = np.where(draw.random((200, 128)) < 0.6, signatures[:200], 5).astype(np.uint8)
    found = [index.find(query) for index in (once, singly) for query in queries]
    assert found[:200] == found[200:]
    assert 0 < sum(found[:200]) < 200


def test_of_a_crowd_in_one_band_the_latest_256_are_compared() -> None:
    from bcmb_jax.data.clean.duplicates import Index

    index = Index(0.8)  # 18 bands of 7
    crowd = np.random.default_rng(8).integers(0, 256, (5000, 128), dtype=np.uint8)
    crowd[:, 7:14] = 1
    index.add(crowd)

    def only_by_the_second_band(number: int) -> bool:
        query = crowd[number].copy()
        query[[7 * band for band in range(18) if band != 1]] ^= 1
        return index.find(query)

    assert all(only_by_the_second_band(5000 - i) for i in (1, 2, 100, 200))
    assert not any(only_by_the_second_band(5000 - i) for i in (400, 2000))
    assert all(index.find(signature) for signature in crowd[::500])
    assert not index.find(np.where(crowd[0] == 1, crowd[0], 255).astype(np.uint8))


def fingerprints(tmp_path: Path, name: str, cleaning: Cleaning, *texts: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    cleaner = Cleaner(cleaning)
    list(cleaner.apply(documents(*texts)))
    cleaner.save(folder)
    return folder


def test_sources_are_compared_with_earlier_ones(tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    draw = random.Random(9)
    a, b, c = (prose(draw, 300) for _ in range(3))
    one = fingerprints(tmp_path, "one", Cleaning(near_duplicates=0.8), a, a)
    second = Cleaning(near_duplicates=0.8, against=[one])
    two = fingerprints(tmp_path, "two", second, b)
    both = Cleaning(near_duplicates=0.8, against=[one, two])
    found = outcomes(both, change(a, draw, 3), b, c)
    assert [text[:6] for text in found[:2]] == ["nearly", "repeat"]
    assert found[2] == c
    with np.load(two / "fingerprints.npz") as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {
            "digests": (1, 16),  # its own texts only
            "signatures": (1, 128),
            "probe": (128,),
        }
    assert both.options()["not_in"] == ["one", "two"]
    exact = Cleaning(exact_duplicates=True, against=[one, two])
    assert outcomes(exact, a, b, c) == ["repeats an earlier text"] * 2 + [c]
    again = fingerprints(tmp_path, "again", Cleaning(near_duplicates=0.8), a, a)
    files = [folder / "fingerprints.npz" for folder in (one, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_folders_that_cannot_be_compared_with_are_named(tmp_path: Path) -> None:
    exact = fingerprints(tmp_path, "exact", Cleaning(exact_duplicates=True), "a")
    none = fingerprints(tmp_path, "none", Cleaning(), "a")
    assert not list(none.iterdir())

    def refused(message: str, *against: Path, near: float | None = None) -> None:
        with pytest.raises(InputError, match=message):
            Cleaner(Cleaning(exact_duplicates=True, near_duplicates=near, against=against))

    refused(r"none has no fingerprints\.npz to compare with: prepare it again with", none)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    content = (exact / "fingerprints.npz").read_bytes()
    for wrong in (content[:-30], b"", b"\x80\x04"):
        (damaged / "fingerprints.npz").write_bytes(wrong)
        refused(r"fingerprints\.npz is damaged", damaged)
    pickled = np.array([{}])
    for digests in (
        np.zeros((3, 15), np.uint8),
        np.zeros((3, 16), np.int64),
        np.zeros(16),
        pickled,
    ):
        np.savez(damaged / "fingerprints.npz", digests=digests)
        refused("is damaged", damaged)
    pytest.importorskip("datasketch")
    refused("has no signatures: prepare .*exact again with --near-duplicates", exact, near=0.8)
    near = fingerprints(tmp_path, "near", Cleaning(near_duplicates=0.8), "a")
    arrays = dict(np.load(near / "fingerprints.npz"))
    arrays["probe"] = arrays["probe"] ^ 1
    np.savez(near / "fingerprints.npz", **arrays)
    refused("another version", near, near=0.8)


def test_near_duplicates_without_datasketch_say_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasketch", None)
    with pytest.raises(InputError, match=r"pip install 'bcmb-jax\[dedup\]'"):
        Cleaner(Cleaning(near_duplicates=0.8))
    assert outcomes(Cleaning(exact_duplicates=True), "a", "a")[1] == "repeats an earlier text"
