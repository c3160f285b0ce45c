from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from distildire.scale.chunks import chunks


def row(size: int = 0) -> dict[str, Any]:
    return {"data": b"x" * size or None}


def test_lists_are_bounded_by_rows_and_by_bytes() -> None:
    sizes = [0, 0, 0, 5, 5, 9, 20, 0, 1]
    with chunks(map(row, sizes), 3, 10) as lists:
        found = [[len(r["data"] or b"") for r in chunk] for chunk in lists]
    assert found == [[0, 0, 0], [5, 5], [9, 20], [0, 1]]
    with chunks([], 3, 10) as lists:
        assert list(lists) == []


def test_the_next_list_is_made_while_one_is_in_work() -> None:
    made = threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        for n in range(6):
            if n == 5:
                made.set()
            yield row()

    with chunks(rows(), 3, 10) as lists:
        assert len(next(lists)) == 3
        assert made.wait(60)
        assert len(next(lists)) == 3
        assert next(lists, None) is None


def test_no_row_is_taken_after_the_end() -> None:
    """Of a source that has no end itself."""
    taken = itertools.count()
    endless = (row(10 if n == 0 else 0) for n in taken)
    with chunks(endless, 10**12, 10) as lists:
        assert len(next(lists)) == 1
    before = next(taken)
    assert next(endless)
    assert next(taken) == before + 2


def test_what_the_source_raises_comes_after_what_it_gave() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from (row(), row(), row())
        raise OSError("gone")

    with chunks(rows(), 2, 10) as lists:
        assert len(next(lists)) == 2
        with pytest.raises(OSError, match="gone"):
            next(lists)
