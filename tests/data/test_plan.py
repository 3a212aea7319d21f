# SPDX-License-Identifier: Apache-2.0
"""The plan covers every token, is the same everywhere for ever, and packs full."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax.data import plan as plan_module
from bcmb_jax.data.plan import EpochPlan, PackingPlan, best_fit_decreasing
from bcmb_jax.errors import InputError


def make_plan(
    lengths, *, weights=None, row_length=128, max_document_length=128, seed=0
) -> PackingPlan:
    return PackingPlan(
        lengths,
        weights=weights or [1] * len(lengths),
        row_length=row_length,
        max_document_length=max_document_length,
        seed=seed,
    )


def random_lengths(documents: int, longest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, longest + 1, documents, dtype=np.int32)


def arrays(epoch: EpochPlan) -> tuple[np.ndarray, ...]:
    return (
        epoch.piece_source,
        epoch.piece_document,
        epoch.piece_start,
        epoch.piece_length,
        epoch.row_offsets,
    )


def same(a: EpochPlan, b: EpochPlan) -> bool:
    return all(map(np.array_equal, arrays(a), arrays(b)))


def times_seen(epoch: EpochPlan, source: int, lengths: np.ndarray) -> list[int]:
    """How often each document is in the epoch, after checking that all of it is, token by token."""
    seen = []
    of_source = epoch.piece_source == source
    for document, length in enumerate(lengths):
        pieces = of_source & (epoch.piece_document == document)
        tokens = np.zeros(length, int)
        for start, n in zip(epoch.piece_start[pieces], epoch.piece_length[pieces], strict=True):
            tokens[start : start + n] += 1
        assert len(set(tokens)) <= 1, f"part of document {document} is seen more often than another"
        seen.append(int(tokens[0]) if length else 0)
    return seen


def naive_best_fit_decreasing(lengths: np.ndarray, row_length: int) -> list[int]:
    """Room left in each row, piece by piece."""
    room: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [i for i, r in enumerate(room) if r >= length]
        if fitting:
            room[min(fitting, key=lambda i: room[i])] -= length
        else:
            room.append(row_length - length)
    return room


@pytest.mark.parametrize("longest", [3, 10, 30, 100])
def test_best_fit_decreasing_is_exact(longest):
    rng = np.random.default_rng(longest)
    for _ in range(100):
        lengths = rng.integers(1, longest + 1, rng.integers(1, 150)).astype(np.int32)
        row, rows = best_fit_decreasing(lengths, 100)
        expected = naive_best_fit_decreasing(lengths, 100)
        filled = np.bincount(row, weights=lengths, minlength=rows).astype(int)
        assert rows == len(expected)
        assert sorted(100 - filled) == sorted(expected)


def test_every_token_is_seen_once_an_epoch():
    lengths = [random_lengths(300, 100), random_lengths(50, 700, seed=1)]
    plan = make_plan(lengths, row_length=200, max_document_length=128)
    for e in range(3):
        epoch = plan.epoch(e)
        for source in range(2):
            assert times_seen(epoch, source, lengths[source]) == [
                int(n > 0) for n in lengths[source]
            ]
        assert epoch.piece_length.max() == 126
        filled = [int(epoch.count_tokens(i, i + 1).sum()) for i in range(epoch.rows)]
        assert max(filled) <= 200
    assert plan.empty_documents == sum(int((n == 0).sum()) for n in lengths) > 0


def test_figures_of_an_epoch():
    lengths = [random_lengths(200, 60), random_lengths(100, 60, seed=1)]
    epoch = make_plan(lengths).epoch(0)
    by_source = [int(n.sum() + 2 * np.count_nonzero(n)) for n in lengths]
    assert epoch.tokens_by_source.tolist() == by_source
    assert epoch.tokens == sum(by_source)
    assert epoch.efficiency == sum(by_source) / (epoch.rows * 128)
    naive = naive_best_fit_decreasing(epoch.piece_length + 2, 128)
    assert epoch.best_fit_decreasing_efficiency == sum(by_source) / (len(naive) * 128)
    assert epoch.efficiency == epoch.best_fit_decreasing_efficiency  # one window
    parts = epoch.count_tokens(0, 5) + epoch.count_tokens(5, epoch.rows)
    assert parts.tolist() == by_source
    pieces = slice(*epoch.row_offsets[3:5])
    columns = [array[pieces].tolist() for array in arrays(epoch)[:4]]
    assert list(epoch.pieces(3)) == list(zip(*columns, strict=True))


def test_an_epoch_is_a_pure_function_of_lengths_seed_and_epoch():
    lengths = [random_lengths(500, 60), random_lengths(80, 300, seed=1)]
    plan = make_plan(lengths, weights=[1, 1.5])
    walked = [plan.epoch(e) for e in range(4)]
    assert same(make_plan(lengths, weights=[1, 1.5]).epoch(3), walked[3])
    assert not same(walked[2], walked[3])
    assert not same(make_plan(lengths, weights=[1, 1.5], seed=1).epoch(3), walked[3])


def test_an_epoch_stays_the_same_for_ever(monkeypatch):
    """Another digest means that running trainings cannot resume: then raise a version, and say so.

    It does not depend on NumPy's version, the machine or the number of threads.
    """
    monkeypatch.setattr(plan_module, "WINDOW", 200)
    monkeypatch.setattr(plan_module, "BLOCK", 16)
    lengths = [(np.arange(500) * 37 % 200).astype(np.int32), np.arange(60, dtype=np.int32)]
    epoch = make_plan(lengths, weights=[1, 2.5], seed=7).epoch(3)
    digest = hashlib.sha256()
    for array, dtype in zip(arrays(epoch), ("u1", "<i4", "<i4", "<i4", "<i8"), strict=True):
        assert array.dtype == dtype
        digest.update(array.tobytes())
    assert digest.hexdigest() == "b16001ec241ca73e4fe4a930d5bad0288f8788b803059e4857d2cf77d30343ee"


@pytest.mark.parametrize(("weight", "epochs", "each"), [(1, 1, 1), (2.5, 2, 5), (0.3, 10, 3)])
def test_weights_rotate_through_the_documents(weight, epochs, each):
    lengths = [random_lengths(97, 60) + 1, random_lengths(41, 60, seed=1) + 1]
    plan = make_plan(lengths, weights=[weight, 1])
    seen = [times_seen(plan.epoch(e), 0, lengths[0]) for e in range(epochs)]
    assert np.sum(seen, axis=0).tolist() == [each] * 97
    for e in range(epochs):
        assert abs(sum(seen[e]) - weight * 97) < 1
        assert max(seen[e]) - min(seen[e]) <= 1


def test_an_epoch_may_be_empty_where_weights_are_small():
    plan = make_plan([np.array([5]), np.array([0])], weights=[0.25, 0.5])
    epochs = [plan.epoch(e) for e in range(8)]
    assert [e.rows for e in epochs] == [0, 0, 0, 1] * 2
    assert epochs[0].tokens == epochs[0].efficiency == 0


def test_windows_hold_the_mix_of_sources_and_keep_reading_local(monkeypatch):
    monkeypatch.setattr(plan_module, "WINDOW", 4096)
    monkeypatch.setattr(plan_module, "BLOCK", 64)
    lengths = [random_lengths(40_000, 60) + 1, random_lengths(1_000, 60, seed=1) + 1]
    epoch = make_plan(lengths).epoch(0)
    windows = np.array_split(np.arange(len(epoch.piece_source)), 10)
    for pieces in windows:
        small = int((epoch.piece_source[pieces] == 1).sum())
        assert small == 100
        documents = epoch.piece_document[pieces][epoch.piece_source[pieces] == 0]
        assert len(set(documents // 64)) <= 4000 / 64 + 2  # whole blocks, but for the two ends
        assert abs(np.corrcoef(np.arange(len(documents)), documents)[0, 1]) < 0.1
        assert np.ptp(documents) > 30_000  # blocks from all over the source
    whole = epoch.best_fit_decreasing_efficiency
    assert whole - 0.002 < epoch.efficiency <= whole


def test_rows_and_the_pieces_in_them_are_in_no_order_of_length():
    lengths = random_lengths(20_000, 400) + 1
    epoch = make_plan([lengths], row_length=1024, max_document_length=1024).epoch(0)
    rows = np.repeat(np.arange(epoch.rows), np.diff(epoch.row_offsets))
    longest = np.maximum.reduceat(epoch.piece_length, epoch.row_offsets[:-1])
    assert abs(np.corrcoef(np.arange(epoch.rows), longest)[0, 1]) < 0.1
    change = np.diff(epoch.piece_length)[rows[1:] == rows[:-1]]
    assert 0.45 < (change[change != 0] < 0).mean() < 0.55


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_document_length": 2}, "max_document_length 2 must be at least 3"),
        ({"max_document_length": 129}, "max_document_length 129 .* at most row_length 128"),
        ({"weights": [1.0]}, "1 weights for 2 sources"),
        ({"weights": [1.0, 0.0]}, "above 0"),
        ({"weights": [1.0, float("nan")]}, "above 0"),
        ({"lengths": []}, "0 sources"),
        ({"lengths": [np.zeros(3, np.int32)]}, "no tokens in any document"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_wrong_input_is_refused(change, message):
    arguments = {"lengths": [np.array([5, 6]), np.array([7])], **change}
    with pytest.raises(InputError, match=message):
        make_plan(**arguments)


PLAN_MANY = """
import sys, time
from pathlib import Path
import numpy as np
from bcmb_jax.data.plan import PackingPlan
documents, rng = int(sys.argv[1]), np.random.default_rng(0)
lengths = np.exp(rng.normal(5.4, 0.8, documents)).astype(np.int32).clip(1, 8190)
lengths[:: 1000] = rng.integers(8191, 60_000, len(lengths[:: 1000]))
begin, wall = time.process_time(), time.perf_counter()
plan = PackingPlan(
    [lengths], weights=[1], row_length=8192, max_document_length=8192, seed=0
)
epoch = plan.epoch(0)
seconds, wall = time.process_time() - begin, time.perf_counter() - wall
# Not getrusage: its peak starts at that of the process this one was forked from.
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(seconds, wall, peak, epoch.efficiency, epoch.best_fit_decreasing_efficiency)
"""


@pytest.mark.parametrize(
    ("documents", "most_seconds", "most_mib"),
    [(1_000_000, 2, 250), pytest.param(10_000_000, 10, 1000, marks=pytest.mark.slow)],
)
def test_ten_million_documents_in_ten_seconds_and_a_gigabyte(documents, most_seconds, most_mib):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", PLAN_MANY, str(documents)]
    output = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    seconds, wall, mib, efficiency, best = map(float, output.split())
    print(f"{documents:,} documents: {seconds:.1f} s of CPU, {wall:.1f} s, {mib:.0f} MiB")
    print(f"efficiency {efficiency:.5f}, best-fit decreasing over the epoch {best:.5f}")
    assert seconds < most_seconds  # of CPU: the machine may be busy with other things
    assert mib < most_mib
    assert best - 0.002 < efficiency <= best


def _texts(pattern: Path) -> Iterator[str]:
    for file in sorted(pattern.parent.glob(pattern.name)):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                yield record.get("body") or f"{record['title']}\n\n{record['abstract']}"


@pytest.fixture(scope="session")
def corpora(shared, tmp_path_factory) -> dict[str, np.ndarray]:
    """Token counts of the real articles; kept in the temporary folder, as counting takes 30 s."""
    from bcmb_jax.data.tokenize import load_tokenizer

    kept = tmp_path_factory.getbasetemp().parent / "bcmb_jax_lengths_pubmed_pmc.npz"
    if not kept.is_file():
        tokenizer = load_tokenizer(str(shared / "data/tokenizers/modernbert"))
        lengths = {}
        for name in ("pubmed", "pmc"):
            texts = list(_texts(shared / "data/pretrain" / name / "*.jsonl.gz"))
            batches = (texts[i : i + 256] for i in range(0, len(texts), 256))
            ids = (document for batch in batches for document in tokenizer.encode_batch(batch))
            lengths[name] = np.array([len(document) for document in ids], np.int32)
        partial = kept.with_name(f"{os.getpid()}.{kept.name}")
        np.savez(partial, **lengths)
        partial.replace(kept)
    with np.load(kept) as saved:
        return dict(saved)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "row_length", "least"),
    [
        (("pubmed", "pmc"), 8192, 0.995),
        (("pubmed", "pmc"), 32768, 0.995),
        (("pubmed",), 8192, 0.995),
        (
            ("pmc",),
            8192,
            0.0,
        ),  # nothing fits beside a long article: only best-fit decreasing counts
        (("pmc",), 32768, 0.995),
    ],
)
def test_real_articles_pack_full(corpora, names, row_length, least):
    lengths = [corpora[name] for name in names]
    epoch = make_plan(lengths, row_length=row_length, max_document_length=8192).epoch(0)
    best = epoch.best_fit_decreasing_efficiency
    print(f"{'+'.join(names)} at {row_length}: {epoch.efficiency:.4%}, best {best:.4%}")
    assert epoch.efficiency >= least
    assert epoch.efficiency >= best - 0.002
    assert Counter(epoch.piece_source.tolist()).keys() == set(range(len(names)))
