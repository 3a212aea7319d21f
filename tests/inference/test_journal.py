# SPDX-License-Identifier: Apache-2.0
"""A journal keeps whole rows through any end of its process, each once."""

import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.inference.journal import journal
from tests.fixtures.modes import modes

ROWS = [f"row {i}\n".encode() * (i % 3) for i in range(20)]  # some of no line, some of two


class Killed(BaseException):
    """The end of a process that is not told."""


def write(file, facts=None, *, stop=None, every=4, tail=b""):
    with journal(file, facts or {"model": "a"}) as kept:
        for i, row in enumerate(ROWS[kept.rows :], kept.rows):
            if i == stop:
                kept.partial.write_bytes(kept.partial.read_bytes() + tail)
                raise Killed
            kept.add(row)
            if i % every == every - 1:
                kept.commit()
        kept.commit()
        return kept.rows


@pytest.mark.parametrize("tail", [b"", b"half a row " * 99])
@pytest.mark.parametrize("stops", [(0,), (3,), (4,), (10, 15), (10, 10, 19)])
def test_no_row_is_lost_or_repeated(tmp_path, stops, tail) -> None:
    file = tmp_path / "new" / "rows.csv"
    for stop in stops:
        with pytest.raises(Killed):
            write(file, stop=stop, tail=tail)
        assert not file.exists()
    assert write(file) == len(ROWS)
    assert file.read_bytes() == b"".join(ROWS)
    assert [x.name for x in file.parent.iterdir()] == ["rows.csv"]
    assert modes(file.parent) == {0o700, 0o600}


def test_rows_of_other_facts_are_not_continued(tmp_path) -> None:
    file = tmp_path / "rows.csv"
    with pytest.raises(Killed):
        write(file, {"model": "a", "input": "b"}, stop=9)
    with pytest.raises(InputError, match=r"rows.csv.partial holds 8 rows .* with another model:"):
        write(file, {"model": "c", "input": "b"})
    state = tmp_path / "rows.csv.partial.json"
    kept = state.read_text()
    state.write_text(kept.replace('"rows": 8', '"rows": "x"'))
    with pytest.raises(InputError, match="is damaged: remove it and"):
        write(file, {"model": "a", "input": "b"})
    state.write_text(kept)
    assert write(file, {"model": "a", "input": "b"}) == len(ROWS)
    with pytest.raises(InputError, match=r"rows.csv exists: give another --output"):
        write(file)


def test_rows_that_never_were_counted_begin_anew(tmp_path) -> None:
    (tmp_path / "rows.csv.partial").write_bytes(b"row 1\n")
    write(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_bytes() == b"".join(ROWS)


def test_a_folder_is_in_its_place_when_it_is_whole(tmp_path) -> None:
    out = tmp_path / "out"
    for stop in (2, None):
        try:
            with journal(out, {}, folder=True) as kept:
                for i in range(kept.rows, 4):
                    if i == stop:
                        raise Killed
                    (kept.partial / f"{i}").write_text("")
                    kept.add(b"")
                    kept.commit()
        except Killed:
            assert kept.rows == 2
            assert not out.exists()
    assert sorted(x.name for x in out.iterdir()) == ["0", "1", "2", "3"]
    assert [*tmp_path.iterdir()] == [out]
