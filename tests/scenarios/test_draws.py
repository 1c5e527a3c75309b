"""Accesses drawn in compiled code are those that Python's generator gives."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from itertools import zip_longest

import pytest

from emulator.kernel.user import ParallelFor
from scenarios.workloads.compiled import draws
from scenarios.workloads.compiled.draws import MOST_AT_ONCE, Draws, Even, draws_of
from scenarios.workloads.tiering import TieringUserSpace
from scenarios.workloads.workload_file import load_workload
from scenarios.workloads.xsbench import XsbenchUserSpace

pytest.importorskip("wasmtime")

THREADS = (
    ("threads.accesses=2500", "threads.drift_every=700", "threads.drift_pages=999"),
    ("threads.accesses=1100", "threads.heap_pages=0", "threads.heap_share=0"),
    ("threads.accesses=1100", "threads.table_pages=0", "threads.heap_share=1", "threads.write_share=1"),
    ("threads.accesses=1100", "threads.hot_pages=1", "threads.hot_share=0.5", "threads.table_pages=1024"),
)


@pytest.mark.parametrize("overrides", THREADS)
def test_threads_access_the_same_pages(overrides: tuple[str, ...]) -> None:
    user = load_workload("tiering", overrides).user_space(4, 11, None)
    assert isinstance(user, TieringUserSpace)
    # Two threads draw in turn from the one compiled side.
    for one, other in zip_longest(
        zip_longest(user.chunks(0), user.drawn_here(0)), zip_longest(user.chunks(3), user.drawn_here(3))
    ):
        assert list(one[0]) == one[1]
        assert list(other[0]) == other[1]


@pytest.mark.parametrize("reads", [0, 69, 1000])
def test_lookups_read_the_same_pages(reads: int) -> None:
    overrides = ("scale=256", f"xsbench.grid_reads={reads}", "xsbench.lookups_at_once=7000")
    user = load_workload("xsbench-rfc", overrides).user_space(4, 2, None)
    assert isinstance(user, XsbenchUserSpace)
    for part in (0, 12):
        loop = user.threads(1)[0].chunks
        assert isinstance(loop, ParallelFor)
        drawn = [list(chunk) for chunk in loop.accesses(part)]
        assert drawn == list(user.drawn_here(part))
        assert drawn


def generator(text: str) -> Draws:
    found = draws_of(text)
    assert found is not None
    return found


def test_every_generator_starts_from_its_own_text() -> None:
    once = [generator(text).even(Even(0, 1 << 40, 1 << 40, 3), 5) for text in ("0/1", "0/1", "1/0", "x" * 40)]
    assert once[0] == once[1]
    assert len({tuple(one) for one in once}) == 3


def test_there_is_a_most() -> None:
    with pytest.raises(ValueError, match="at most 4096"):
        generator("0").even(Even(0, 1, 1, 0), MOST_AT_ONCE + 1)


def test_without_the_runtime_python_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    user = load_workload("tiering", THREADS[0]).user_space(4, 11, None)
    assert isinstance(user, TieringUserSpace)
    monkeypatch.setattr(draws, "_side", lambda: None)
    assert list(user.chunks(1)) == list(user.drawn_here(1))


def test_what_is_shipped_was_made_from_this_source() -> None:
    shared, own = files("emulator.explore.compiled"), files("scenarios.workloads.compiled")
    source = shared.joinpath("twister.c").read_bytes() + own.joinpath("draws.c").read_bytes()
    assert own.joinpath("draws.source").read_text().strip() == sha256(source).hexdigest(), (
        "the C files have changed: run scenarios/workloads/compiled/build-draws"
    )
