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
from bcmb_jax.data.loader import Position, StepBatch, Steps
from bcmb_jax.data.plan import PackingPlan
from bcmb_jax.data.shard_writer import ShardWriter
from bcmb_jax.data.shards import Shards, open_shards
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


def make_steps(
    sources, start=(0, 0, 0), *, weights=None, seed=0, plan=PackingPlan, **options
) -> Steps:
    packing = plan(
        [source.lengths for source in sources],
        weights=weights or [1] * len(sources),
        row_length=ROW_LENGTH,
        max_document_length=LONGEST,
        seed=seed,
    )
    options = {"rows_per_step": 8, **options}
    return Steps(sources, packing, Position(*start), special=SPECIAL, **options)


def take(steps: Steps, count: int) -> list[StepBatch]:
    iterator = steps.read_ahead()
    try:
        return list(itertools.islice(iterator, count))
    finally:
        iterator.close()


def whole_step(step: StepBatch) -> tuple:
    """Figures that are the same on all processes."""
    return step.tokens, step.tokens_by_source, step.packing_efficiency, step.next_position


def joined(batches) -> Batch:
    return Batch(*map(np.concatenate, zip(*batches, strict=True)))


def equal(a: Batch, b: Batch) -> bool:
    return all(
        x.dtype == y.dtype == np.int32 and np.array_equal(x, y) for x, y in zip(a, b, strict=True)
    )


def reading_threads() -> list[threading.Thread]:
    ours = ("loader", "grain")
    return [thread for thread in threading.enumerate() if thread.name.startswith(ours)]


def wait_for_threads_to_end() -> None:
    """Grain's thread ends when it has read the step that it was at."""
    for thread in reading_threads():
        thread.join(timeout=10)
    assert not reading_threads()


def assemble(sources, plan: PackingPlan, rows_per_step: int, steps: int):
    """The first steps, written out from the plan's pieces: `[(row, epoch, row of it, id), …]`."""
    epochs = ((e, plan.epoch(e)) for e in itertools.count())
    rows = ((e, epoch, row) for e, epoch in epochs for row in range(epoch.rows))
    for step in range(steps):
        batch = Batch([], [], [], [])
        positions, counts = [], {source.name: 0 for source in sources}
        for i, (e, epoch, row) in enumerate(itertools.islice(rows, rows_per_step)):
            tokens, segment_ids, places = [], [], []
            for segment, (source, document, start, length) in enumerate(epoch.pieces(row), 1):
                text = sources[source].read(document, start, start + length).tolist()
                tokens += [SPECIAL.cls, *text, SPECIAL.sep]
                segment_ids += [segment] * (length + 2)
                places += range(length + 2)
                counts[sources[source].name] += length + 2
            padding = [0] * (ROW_LENGTH - len(tokens))
            batch.tokens.append(tokens + [SPECIAL.pad] * len(padding))
            batch.segment_ids.append(segment_ids + padding)
            batch.positions.append(places + padding)
            batch.row_ids.append(step * rows_per_step + i)
            at_end = row + 1 == epoch.rows
            positions.append((e + 1, 0) if at_end else (e, row + 1))
        end = Position(*positions[-1], (step + 1) * rows_per_step)
        total = sum(counts.values())
        arrays = Batch(*(np.array(field, np.int32) for field in batch))
        yield StepBatch(arrays, total, counts, total / (rows_per_step * ROW_LENGTH), end)


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
    for epoch in range(2):
        source = make_steps(shards, Position(epoch), rows_per_step=1)
        plan = source.plan.epoch(epoch)
        steps = take(source, plan.rows)
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
    second = make_steps(sources(), rows_per_step=4, share=np.array([2, 3]))
    both = take(make_steps(sources(), rows_per_step=4), 12)
    for mine, step in zip(take(second, 12), both, strict=True):
        real = step.batch.segment_ids > 0
        assert mine.batch.tokens.shape == (2, ROW_LENGTH)
        assert mine.tokens == step.tokens == real.sum() == sum(step.tokens_by_source.values())
        assert list(step.tokens_by_source) == ["notes", "articles"]
        assert whole_step(mine) == whole_step(step)
        assert step.packing_efficiency == real.mean()
    total = sum(np.array(list(s.tokens_by_source.values())) for s in both)
    plans = [second.plan.epoch(e) for e in range(4)]
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
    whole = take(make_steps(sources(), rows_per_step=14), 6)
    parts = [
        take(make_steps(sources(), rows_per_step=14, share=share), 6)
        for share in np.split(np.arange(14), processes)
    ]
    for step, *shares in zip(whole, *parts, strict=True):
        assert equal(joined([share.batch for share in shares]), step.batch)
        assert all(whole_step(share) == whole_step(step) for share in shares)


@pytest.mark.parametrize("processes", [1, 2])
def test_steps_are_those_of_the_plan_over_two_ends_of_epochs(processes):
    whole = make_steps(sources(), weights=[1, 0.5])
    expected = list(assemble(sources(), whole.plan, 8, 14))
    assert expected[-2].next_position.epoch >= 2
    for start in (0, 1, 2, 4, 7, 12):
        position = expected[start - 1].next_position if start else Position()
        shares = [
            take(
                make_steps(
                    sources(),
                    position,
                    weights=[1, 0.5],
                    share=share,
                ),
                14 - start,
            )
            for share in np.split(np.arange(8), processes)
        ]
        for step, *parts in zip(expected[start:], *shares, strict=True):
            assert equal(joined([part.batch for part in parts]), step.batch)
            assert all(whole_step(part) == whole_step(step) for part in parts)


def test_a_step_is_read_in_any_order():
    source = make_steps(sources(), Position(0, 3, 100))
    ahead = take(make_steps(sources(), Position(0, 3, 100)), 12)
    for number in (11, 0, 5, 4):
        assert equal(source[number].batch, ahead[number].batch)
        assert whole_step(source[number]) == whole_step(ahead[number])


def test_restarting_anywhere_gives_the_same_bytes():
    weights = [1, 0.5]  # epochs of different rows
    rows = take(make_steps(sources(), weights=weights, rows_per_step=1), 150)
    positions = [Position(), *(row.next_position for row in rows)]
    assert [position.row_id for position in positions] == list(range(151))
    assert positions[120].epoch >= 3
    for start in range(0, 120, 4):
        steps = take(make_steps(sources(), positions[start], weights=weights), 3)
        assert equal(
            joined([step.batch for step in steps]),
            joined([row.batch for row in rows[start : start + 24]]),
        )
        assert steps[-1].next_position == positions[start + 24]


def test_the_seed_decides_and_epochs_differ():
    same = [take(make_steps(sources(), seed=seed), 5) for seed in (0, 0, 1)]
    assert all(equal(a.batch, b.batch) for a, b in zip(*same[:2], strict=True))
    assert not any(equal(a.batch, b.batch) for a, b in zip(*same[1:], strict=True))
    first, second = (
        take(make_steps(sources(), Position(e), rows_per_step=30), 1)[0].batch for e in range(2)
    )
    assert not np.array_equal(first.tokens, second.tokens)


def test_a_step_may_span_several_epochs():
    one = Documents("one", [30, 50])
    (step,) = take(make_steps([one], rows_per_step=5), 1)
    assert step.next_position == Position(5, 0, 5)
    for row in step.batch.tokens:
        assert sorted(row[row >= 5]) == sorted(np.concatenate(one.documents))
    (step,) = take(make_steps([one], weights=[0.25], rows_per_step=3), 1)  # empty epochs
    assert step.next_position.row_id == 3
    assert step.tokens in (32 + 52 + 32, 52 + 32 + 52)


def test_row_ids_go_on_from_the_given_one():
    step = take(make_steps(sources(), Position(1, 2, 1000)), 2)[1]
    assert step.batch.row_ids.tolist() == list(range(1008, 1016))


def test_the_next_epoch_is_planned_in_the_background():
    planned = {}

    class Watched(PackingPlan):
        def epoch(self, epoch: int):
            planned[epoch] = threading.current_thread().name
            return super().epoch(epoch)

    iterator = make_steps(sources(), plan=Watched, rows_per_step=1).read_ahead()
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
    iterator = make_steps(sources()).read_ahead()
    next(iterator)
    assert len(reading_threads()) == 2
    if end == "close":
        iterator.close()
    del iterator
    gc.collect()
    wait_for_threads_to_end()


def test_an_error_in_reading_is_raised_by_next():
    class Broken(Documents):
        def read(self, document: int, start: int, stop: int) -> np.ndarray:
            if document == 7:
                raise OSError("the disk is gone")
            return super().read(document, start, stop)

    iterator = make_steps([Broken("broken", [30] * 20)], rows_per_step=1).read_ahead()
    with pytest.raises(OSError, match="the disk is gone"):
        list(itertools.islice(iterator, 20))
    wait_for_threads_to_end()


@pytest.mark.parametrize("broken", [0, 2])
def test_an_error_in_planning_is_raised_by_next(broken):
    class Broken(PackingPlan):
        def epoch(self, epoch: int):
            if epoch == broken:
                raise MemoryError("no room for the plan")
            return super().epoch(epoch)

    steps = make_steps(sources(), plan=Broken, rows_per_step=1)
    iterator, count = steps.read_ahead(), 0
    with pytest.raises(MemoryError, match="no room for the plan"):
        for _ in iterator:
            count += 1
    assert count == sum(PackingPlan.epoch(steps.plan, e).rows for e in range(broken))
    wait_for_threads_to_end()


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="0 rows a step"):
        make_steps(sources(), rows_per_step=0)
    rows = make_steps(sources()).plan.epoch(2).rows
    with pytest.raises(InputError, match=f"no row 99 in epoch 2, which has {rows}"):
        take(make_steps(sources(), Position(2, 99)), 1)
    plan = make_steps(sources()).plan
    for others in (sources()[::-1], sources()[:1]):
        with pytest.raises(ValueError, match="other lengths"):
            Steps(others, plan, Position(), special=SPECIAL, rows_per_step=8)
    with pytest.raises(InputError, match=r"different names.*: notes, notes"):
        make_steps([Documents("notes", [5]), Documents("notes", [6])])


def test_batches_come_faster_than_eight_gpus_eat_them(tmp_path):
    """Measured 20 to 50 million tokens a second on two cores; the goal on eight H100 is three."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(5.4, 0.8, 20_000).astype(int).clip(1, 8190)
    documents = [rng.integers(5, 1000, n) for n in lengths]
    shards = write_shards(tmp_path / "notes", "notes", documents)
    plan = PackingPlan(
        [shards.lengths], weights=[1], row_length=8192, max_document_length=8192, seed=0
    )
    ahead = Steps([shards], plan, Position(), special=SPECIAL, rows_per_step=64).read_ahead()
    next(ahead)
    rates = []
    for _ in range(4):  # others may be busy on this machine: the fastest of four counts
        begin = time.perf_counter()
        steps = list(itertools.islice(ahead, 20))
        rates.append(sum(step.tokens for step in steps) / (time.perf_counter() - begin))
    ahead.close()
    print(", ".join(f"{rate / 1e6:.1f}" for rate in rates), "million tokens/s")
    assert max(rates) > 3e6
