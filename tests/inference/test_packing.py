# SPDX-License-Identifier: Apache-2.0
"""Windows of any lengths become batches of at most six shapes, each window in one of them."""

import numpy as np
import pytest

from bcmb_jax.inference.packing import SHAPES, pack, slots_in
from bcmb_jax.inference.windows import Window


def windows_of(sizes) -> list[Window]:
    return [Window(np.full(n, i + 1, np.int32), 0, n) for i, n in enumerate(sizes)]


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("longest", [100, 1024, 8192])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_500_lengths_take_few_shapes(platform, longest, devices) -> None:
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.lognormal(5.5, 1.3, 500).astype(int) + 2, longest).tolist()
    sizes[:2] = [2, longest]
    windows = windows_of(sizes)
    seen: list[int] = []
    shapes = set()
    positions = 0
    for count in (1, 40, 500):  # what is left at an end is packed otherwise
        seen.clear()
        positions = 0
        slots = rng.integers(0, 3, 500).tolist()
        for batch, places in pack(windows[:count], slots, platform, devices, longest):
            shapes.add(batch.tokens.shape)
            positions += batch.tokens.size
            assert len(batch.tokens) % devices == 0
            used = np.zeros((len(batch.tokens), slots_in(batch.tokens.shape[1])), int)
            for place in places:
                size = sizes[place.window]
                row = batch.tokens[place.row, place.start : place.start + size]
                assert (row == place.window + 1).all()
                used[place.row, place.slots] += 1
                assert place.slots.stop - place.slots.start == slots[place.window]
                assert place.slots.stop <= used.shape[1]
            assert used.max() <= 1
            seen += [place.window for place in places]
        assert sorted(seen) == [*range(count)]
    assert len(shapes) <= SHAPES
    if platform == "cpu" and devices == 1:
        assert positions < 1.1 * sum(sizes)


def test_a_short_text_alone_takes_the_shortest_row() -> None:
    (packed,) = pack(windows_of([12]), [1], "cpu", 1, 8192)
    assert packed.batch.tokens.shape == (1, 128)
