# SPDX-License-Identifier: Apache-2.0
"""Batches hold every document, are the same from any position on any number of processes."""

import gc
import itertools
import threading
import time

import numpy as np
import pytest
import tokenizers

from bcmb_jax.batch import Batch
from bcmb_jax.data.loader import Loader, Position, StepBatch
from bcmb_jax.data.plan import PackingPlan
from bcmb_jax.data.shards import Shards, ShardWriter, open_shards
from bcmb_jax.data.tokenize import SpecialTokens, Tokenizer
from bcmb_jax.errors import InputError

SPECIAL = SpecialTokens(cls=1, sep=2, pad=3, mask=4, unk=0)
ROW_LENGTH, LONGEST = 100, 64


class Documents:
    """A source in memory."""

    def __init__(self, name: str, lengths, seed: int = 0):
        self.name = name
        self.lengths = np.asarray(lengths, np.int32)
        rng = np.random.default_rng(seed)
        self.documents = [rng.integers(5, 1000, n, dtype=np.int32) for n in self.lengths]

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        return self.documents[document][start:stop]


def sources() -> list[Documents]:
    rng = np.random.default_rng(0)
    notes = Documents("notes", rng.integers(1, 40, 60))
    return [notes, Documents("articles", rng.integers(1, 300, 9), seed=1)]


def make_loader(sources, *, weights=None, seed=0, plan=PackingPlan, **options) -> Loader:
    packing = plan(
        [source.lengths for source in sources],
        weights=weights or [1] * len(sources),
        row_length=ROW_LENGTH,
        max_document_length=LONGEST,
        seed=seed,
    )
    return Loader(sources, packing, special=SPECIAL, **{"rows_per_step": 8, **options})


def take(loader: Loader, steps: int, position=(0, 0, 0)) -> list[StepBatch]:
    iterator = loader.batches(*position)
    try:
        return list(itertools.islice(iterator, steps))
    finally:
        iterator.close()


def joined(batches) -> Batch:
    return Batch(*map(np.concatenate, zip(*batches, strict=True)))


def equal(a: Batch, b: Batch) -> bool:
    return all(
        x.dtype == y.dtype == np.int32 and np.array_equal(x, y) for x, y in zip(a, b, strict=True)
    )


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def write_shards(directory, name: str, documents: list[np.ndarray]) -> Shards:
    vocabulary = {f"word{i}": i for i in range(1000)}
    words = tokenizers.models.WordLevel(vocabulary, unk_token="word0")
    with ShardWriter(directory, Tokenizer(tokenizers.Tokenizer(words), SPECIAL)) as writer:
        for tokens in documents:
            writer.add(tokens)
        writer.finish(source=name, split="train", seed=0, options={})
    return open_shards(directory)


def test_every_document_comes_out_of_the_shards_once_an_epoch(tmp_path):
    shards = [write_shards(tmp_path / s.name, s.name, s.documents) for s in sources()]
    loader = make_loader(shards, rows_per_step=1)
    for epoch in range(2):
        plan = loader.plan.epoch(epoch)
        steps = take(loader, plan.rows, Position(epoch))
        assert steps[-1].next_position == Position(epoch + 1, 0, plan.rows)
        rebuilt = [[np.full(n, -1) for n in source.lengths] for source in shards]
        for row, step in enumerate(steps):
            tokens, segment_ids, positions, _ = (field[0] for field in step.batch)
            end = 0
            for segment, (source, document, start, length) in enumerate(plan.pieces(row), 1):
                begin, end = end, end + length + 2
                assert tokens[begin] == SPECIAL.cls
                assert tokens[end - 1] == SPECIAL.sep
                assert set(segment_ids[begin:end]) == {segment}
                assert positions[begin:end].tolist() == list(range(length + 2))
                part = rebuilt[source][document][start : start + length]
                assert set(part) == {-1}, "read twice"
                part[:] = tokens[begin + 1 : end - 1]
            assert set(tokens[end:]) <= {SPECIAL.pad}
            assert not segment_ids[end:].any()
            assert not positions[end:].any()
        for source, documents in zip(shards, rebuilt, strict=True):
            for document, tokens in enumerate(documents):
                expected = source.read(document, 0, int(source.lengths[document]))
                assert np.array_equal(tokens, expected)


def test_what_a_step_says_of_itself():
    loader = make_loader(sources(), rows_per_step=4, process_index=1, process_count=2)
    both = make_loader(sources(), rows_per_step=4)
    for mine, step in zip(take(loader, 12), take(both, 12), strict=True):
        real = step.batch.segment_ids > 0
        assert mine.batch.tokens.shape == (2, ROW_LENGTH)
        assert mine.tokens == step.tokens == real.sum() == sum(step.tokens_by_source.values())
        assert list(step.tokens_by_source) == ["notes", "articles"]
        assert mine[2:] == step[2:]
        assert step.packing_efficiency == real.mean()
    total = sum(np.array(list(s.tokens_by_source.values())) for s in take(both, 12))
    plans = [loader.plan.epoch(e) for e in range(4)]
    position, rest = 0, 48
    expected = np.zeros(2, int)
    for plan in plans:
        rows = min(rest, plan.rows)
        expected += plan.count_tokens(0, rows)
        position, rest = position + rows, rest - rows
    assert rest == 0
    assert total.tolist() == expected.tolist()


@pytest.mark.parametrize("processes", [2, 7])
def test_processes_share_the_rows_of_one(processes):
    whole = take(make_loader(sources(), rows_per_step=14), 6)
    parts = [
        take(make_loader(sources(), rows_per_step=14, process_index=i, process_count=processes), 6)
        for i in range(processes)
    ]
    for step, *shares in zip(whole, *parts, strict=True):
        assert equal(joined([share.batch for share in shares]), step.batch)
        assert all(share[1:] == step[1:] for share in shares)


def test_restarting_anywhere_gives_the_same_bytes():
    weights = [1, 0.5]  # epochs of different rows
    rows = take(make_loader(sources(), weights=weights, rows_per_step=1), 150)
    positions = [Position(), *(row.next_position for row in rows)]
    assert [position.row_id for position in positions] == list(range(151))
    assert positions[120].epoch >= 3
    loader = make_loader(sources(), weights=weights)
    for start in range(0, 120, 4):
        steps = take(loader, 3, positions[start])
        assert equal(
            joined([step.batch for step in steps]),
            joined([row.batch for row in rows[start : start + 24]]),
        )
        assert steps[-1].next_position == positions[start + 24]


def test_the_seed_decides_and_epochs_differ():
    same = [take(make_loader(sources(), seed=seed), 5) for seed in (0, 0, 1)]
    assert all(equal(a.batch, b.batch) for a, b in zip(*same[:2], strict=True))
    assert not any(equal(a.batch, b.batch) for a, b in zip(*same[1:], strict=True))
    loader = make_loader(sources(), rows_per_step=30)
    first, second = (take(loader, 1, Position(e))[0].batch for e in range(2))
    assert not np.array_equal(first.tokens, second.tokens)


def test_a_step_may_span_several_epochs():
    one = Documents("one", [30, 50])
    (step,) = take(make_loader([one], rows_per_step=5), 1)
    assert step.next_position == Position(5, 0, 5)
    for row in step.batch.tokens:
        assert sorted(row[row >= 5]) == sorted(np.concatenate(one.documents))
    (step,) = take(make_loader([one], weights=[0.25], rows_per_step=3), 1)  # empty epochs
    assert step.next_position.row_id == 3
    assert step.tokens in (32 + 52 + 32, 52 + 32 + 52)


def test_row_ids_go_on_from_the_given_one():
    step = take(make_loader(sources()), 2, Position(1, 2, 1000))[1]
    assert step.batch.row_ids.tolist() == list(range(1008, 1016))


def test_the_next_epoch_is_planned_in_the_background():
    planned = {}

    class Watched(PackingPlan):
        def epoch(self, epoch: int):
            planned[epoch] = threading.current_thread().name
            return super().epoch(epoch)

    loader = make_loader(sources(), plan=Watched, rows_per_step=1)
    iterator = loader.batches()
    next(iterator)
    for _ in range(100):
        if 1 in planned:
            break
        time.sleep(0.01)
    assert planned.keys() == {0, 1}
    assert planned[1].startswith("loader")
    iterator.close()


@pytest.mark.parametrize("end", ["close", "drop"])
def test_threads_end_with_the_iterator(end):
    iterator = make_loader(sources()).batches()
    next(iterator)
    assert loader_threads()
    if end == "close":
        iterator.close()
    del iterator
    gc.collect()
    assert not loader_threads()


def test_an_error_in_a_thread_is_raised_by_next():
    class Broken(Documents):
        def read(self, document: int, start: int, stop: int) -> np.ndarray:
            if document == 7:
                raise OSError("the disk is gone")
            return super().read(document, start, stop)

    iterator = make_loader([Broken("broken", [30] * 20)], rows_per_step=1).batches()
    with pytest.raises(OSError, match="the disk is gone"):
        list(itertools.islice(iterator, 20))
    assert not loader_threads()


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="8 rows a step do not divide among 3 processes"):
        make_loader(sources(), process_count=3)
    with pytest.raises(InputError, match="0 rows a step"):
        make_loader(sources(), rows_per_step=0)
    rows = make_loader(sources()).plan.epoch(2).rows
    with pytest.raises(InputError, match=f"no row 99 in epoch 2, which has {rows}"):
        take(make_loader(sources()), 1, Position(2, 99))
    plan = make_loader(sources()).plan
    for others in (sources()[::-1], sources()[:1]):
        with pytest.raises(ValueError, match="other lengths"):
            Loader(others, plan, special=SPECIAL, rows_per_step=8)
    with pytest.raises(InputError, match=r"different names.*: notes, notes"):
        make_loader([Documents("notes", [5]), Documents("notes", [6])])


def test_batches_come_faster_than_eight_gpus_eat_them(tmp_path):
    """Measured 20 to 50 million tokens a second on two cores; the goal on eight H100 is three."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(5.4, 0.8, 20_000).astype(int).clip(1, 8190)
    documents = [rng.integers(5, 1000, n) for n in lengths]
    shards = write_shards(tmp_path / "notes", "notes", documents)
    plan = PackingPlan(
        [shards.lengths], weights=[1], row_length=8192, max_document_length=8192, seed=0
    )
    with_threads = Loader([shards], plan, special=SPECIAL, rows_per_step=64).batches()
    next(with_threads)
    begin = time.perf_counter()
    steps = list(itertools.islice(with_threads, 20))
    seconds = time.perf_counter() - begin
    with_threads.close()
    tokens = sum(step.tokens for step in steps)
    print(f"{20 * 64 / seconds:,.0f} rows/s, {tokens / seconds / 1e6:.1f} million tokens/s")
    assert tokens / seconds > 3e6
