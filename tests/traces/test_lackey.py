"""Lackey's text becomes the accesses that it describes; the window rule reorders no further than it says."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.traces import lackey
from scenarios.traces.format import FETCH, READ, WRITE, TraceError, TraceWriter, read_trace
from scenarios.traces.lackey import LackeyTotals, import_lackey, lackey_header

Run = tuple[int, int, int]
KINDS = {"I ": [FETCH], " L": [READ], " S": [WRITE], " M": [READ, WRITE]}


def imported(folder: Path, text: str | bytes, window: int = 1) -> tuple[list[Run], LackeyTotals]:
    data = text.encode() if isinstance(text, str) else text
    with TraceWriter(folder / "out.trace", lackey_header("a test", window)) as writer:
        found = import_lackey(io.BytesIO(data), writer, window=window)
    return list(read_trace(folder / "out.trace").runs()), found


def touches(kind: str, address: int, size: int) -> list[tuple[int, int]]:
    """The plain reading of one line: which (page, kind) it touches, in order."""
    pages = sorted({address >> 12, (address + size - 1) >> 12})
    return [(page, each) for each in KINDS[kind] for page in pages]


def test_each_kind_of_line(tmp_path: Path) -> None:
    text = "I  04000d70,3\n L 1ffeffe7e,8\n S 1ffeffe70,8\n M 04a1a2c8,4\n"
    runs, found = imported(tmp_path, text)
    assert runs == [
        (0x4000, FETCH, 1),
        (0x1FFEFF, READ, 1),
        (0x1FFEFF, WRITE, 1),
        (0x4A1A, READ, 1),
        (0x4A1A, WRITE, 1),
    ]
    assert found == LackeyTotals(lines=4, access_lines=4, modifies=1, crossings=0, ignored=0)


def test_an_access_across_a_boundary_touches_both_pages(tmp_path: Path) -> None:
    text = " L 00001ffc,4\n L 00001ffd,4\n M 00003fff,2\n S 00005fe0,32\n S 00005fe1,32\n"
    runs, found = imported(tmp_path, text)
    assert runs == [
        (1, READ, 2),
        (2, READ, 1),
        (3, READ, 1),
        (4, READ, 1),
        (3, WRITE, 1),
        (4, WRITE, 1),
        (5, WRITE, 2),
        (6, WRITE, 1),
    ]
    assert (found.crossings, found.modifies) == (3, 1)


def test_other_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    noise = [
        "==12== Lackey",
        "",
        "hello, world",
        "I 04000000,3",
        " L 0400000g,8",
        " L 04000000,0",
        " L 04000000,513",
    ]
    noise += [
        " L 4000000,",
        " L fffffffffffffffff,1",
        " L ffffffffffffffff,2",
        "x L 04000000,8",
        " L 04000000,8 ",
    ]
    runs, found = imported(tmp_path, "\n".join([*noise, "I  04000000,3", *noise]))
    assert runs == [(0x4000, FETCH, 1)]
    assert (found.lines, found.ignored) == (2 * len(noise) + 1, 2 * len(noise))


@pytest.mark.parametrize(
    "text", ["", "\n", "page,kind\n1,r\n", "==1== Memcheck, a memory error detector\n", "\x00" * 99]
)
@pytest.mark.parametrize("window", [1, 64])
def test_text_without_any_access_is_told_what_would_be_right(tmp_path: Path, text: str, window: int) -> None:
    with pytest.raises(TraceError, match=r"no lackey access line.*valgrind --tool=lackey --trace-mem=yes"):
        imported(tmp_path, text, window)
    assert list(tmp_path.iterdir()) == []


def test_a_window_merges_by_page_and_kind_in_order_of_first_touch(tmp_path: Path) -> None:
    lines = [
        "I  00001000,4",
        " L 00002000,8",
        "I  00001004,4",
        " L 00003000,8",
        " L 00002008,8",
        " L 00003008,8",
    ]
    text = "\n".join(lines) + "\n"
    exact, _ = imported(tmp_path, text)
    assert exact == [(1, FETCH, 1), (2, READ, 1), (1, FETCH, 1), (3, READ, 1), (2, READ, 1), (3, READ, 1)]
    by_three, _ = imported(tmp_path, text, 3)
    assert by_three == [(1, FETCH, 2), (2, READ, 1), (3, READ, 2), (2, READ, 1)]
    by_six, _ = imported(tmp_path, text, 6)
    assert by_six == [(1, FETCH, 2), (2, READ, 2), (3, READ, 2)]


def test_other_lines_do_not_use_up_a_window(tmp_path: Path) -> None:
    lines = ["I  00001000,4", " L 00002000,8", "I  00001004,4", " L 00003000,8"]
    plain, _ = imported(tmp_path, "\n".join(lines), 2)
    noisy, _ = imported(tmp_path, "\n==9== noise\n".join(lines), 2)
    assert noisy == plain


LINES = st.lists(
    st.tuples(
        st.sampled_from(sorted(KINDS)),
        st.one_of(st.integers(0, 0x5000), st.integers(0, (1 << 64) - 1024)),
        st.sampled_from([1, 2, 4, 8, 10, 16, 32, 64, 512]),
    ),
    min_size=1,
    max_size=80,
)


@given(lines=LINES, window=st.sampled_from([1, 2, 5, 64]), noise=st.booleans(), chunk=st.integers(1, 99))
def test_the_import_agrees_with_a_plain_reading(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[tuple[str, int, int]],
    window: int,
    noise: bool,
    chunk: int,
) -> None:
    text = "".join(
        f"{kind} {address:08x},{size}\n" + "==1== noise\n" * noise for kind, address, size in lines
    )
    with pytest.MonkeyPatch.context() as patch:
        # Small bounds, so that lines straddle chunks and the caches overflow.
        patch.setattr(lackey, "_CHUNK", chunk)
        patch.setattr(lackey, "_CACHED_LINES", 7)
        patch.setattr(lackey, "_CACHED_HEADS", 3)
        runs, found = imported(tmp_path_factory.mktemp("plain"), text, window)
    accesses = [(page, kind) for page, kind, count in runs for _ in range(count)]
    expected: list[tuple[int, int]] = []
    for start in range(0, len(lines), window):
        part = [touch for line in lines[start : start + window] for touch in touches(*line)]
        expected += Counter(part).elements()  # grouped, in order of first touch
    assert accesses == expected
    assert found.access_lines == len(lines)
    assert found.modifies == sum(kind == " M" for kind, _, _ in lines)
    assert found.crossings == sum(len(touches("I ", address, size)) > 1 for _, address, size in lines)


def test_a_line_without_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lackey, "_CHUNK", 64)
    monkeypatch.setattr(lackey, "_LONGEST_LINE", 100)
    text = " L 00001000,8\n" + "z" * 1000 + " S 00002000,8\n L 00003000,8\n" + "z" * 1000
    runs, found = imported(tmp_path, text)
    assert runs == [(1, READ, 1), (3, READ, 1)]
    assert (found.lines, found.ignored) == (4, 2)


def test_progress_is_told_in_bytes_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lackey, "_CHUNK", 28)
    told: list[tuple[int, int]] = []
    with TraceWriter(tmp_path / "out.trace", {}) as writer:
        stream = io.BytesIO(b" L 00001000,8\n" * 4)
        import_lackey(stream, writer, lambda read, lines: told.append((read, lines)))
    assert told == [(28, 2), (56, 4)]
