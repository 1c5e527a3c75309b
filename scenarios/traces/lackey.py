"""Import of the text that `valgrind --tool=lackey --trace-mem=yes` prints, one memory access a line.

The window rule keeps real traces compact: the access lines are taken `window` at a time; inside a window
all accesses of one kind to one page become one run, and runs stand in order of first touch. So no access
leaves its window, and no reuse distance (distinct pages between two accesses to a page) changes by more than
the number of distinct pages in the two windows at its ends. Window 1 is the exact order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import IO, NamedTuple

from scenarios.traces.format import (
    FETCH,
    MAX_PAGE,
    PAGE_SHIFT,
    PAGE_SIZE,
    READ,
    WRITE,
    TraceError,
    TraceWriter,
)

DEFAULT_WINDOW = 1024
COMMAND = "valgrind --tool=lackey --trace-mem=yes --log-file=FILE PROGRAM"

_LINE = re.compile(rb"(I | [LSM]) ([0-9a-fA-F]{1,16}),([0-9]{1,3})")
_MODIFY = 3
_KINDS = {b" L": READ, b" S": WRITE, b"I ": FETCH, b" M": _MODIFY}
_LARGEST_ACCESS = 512  # bytes; lackey's own limit, MAX_DSIZE in lackey/lk_main.c
_IGNORED = -1

_CHUNK = 1 << 20
_LONGEST_LINE = 1 << 20
_CACHED_LINES = 1 << 16
_CACHED_HEADS = 1 << 16


class LackeyTotals(NamedTuple):
    """Lines of the input. `modifies` and `crossings` are access lines too; `ignored` are all other lines."""

    lines: int
    access_lines: int
    modifies: int
    crossings: int
    ignored: int


def lackey_header(source: str, window: int) -> dict[str, str | int]:
    """The header of a trace that `import_lackey` makes from `source` (a file name or a description)."""
    if window == 1:
        rule = "exact order"
    else:
        rule = f"per {window} access lines: one run per page and kind, in order of first touch"
    return {"made_by": "migrc trace import lackey", "source": source, "window": window, "rule": rule}


def import_lackey(
    stream: IO[bytes],
    writer: TraceWriter,
    progress: Callable[[int, int], None] | None = None,
    *,
    window: int = DEFAULT_WINDOW,
) -> LackeyTotals:
    """Read lackey's text from `stream` to its end and add its accesses to `writer`.

    A modify is a read, then a write. An access across a page boundary is one access to each of the two pages.
    `progress` is called with (bytes, lines) read so far, about every megabyte. Memory does not grow with the
    input. Raises TraceError when no line is a lackey access line.
    """
    if window < 1:
        raise ValueError(f"window {window}: at least 1 access line")
    collector = _Windows(writer, window)
    decode = _Codes().__getitem__
    lines = ignored = read = 0
    rest = b""
    overlong = False
    while chunk := stream.read(_CHUNK):
        read += len(chunk)
        batch = (rest + chunk).split(b"\n")
        rest = batch.pop()
        if overlong and batch:
            batch[0] = b""  # the end of a line whose beginning was dropped
            overlong = False
        if len(rest) > _LONGEST_LINE or overlong:
            rest, overlong = b"", True
        codes = list(map(decode, batch))
        lines += len(codes)
        if other := codes.count(_IGNORED):
            ignored += other
            codes = [code for code in codes if code != _IGNORED]
        collector.take(codes)
        if progress is not None:
            progress(read, lines)
    if rest or overlong:
        lines += 1
        code = _IGNORED if overlong else decode(rest)
        if code == _IGNORED:
            ignored += 1
        else:
            collector.take([code])
    collector.finish()
    if lines == ignored:
        raise TraceError(f"no lackey access line in {lines} lines of input; make it with: {COMMAND}")
    return LackeyTotals(lines, lines - ignored, collector.modifies, collector.crossings, ignored)


class _Codes(dict[bytes, int]):
    """Line to code: page << 2 | kind, kind 3 being a modify; -2 - that if it crosses a page; or _IGNORED.

    Whole lines are the keys because programs repeat themselves: most lines cost one dictionary lookup in C,
    and the lookup is exact. Lines not seen lately share the text before the page offset with lines that were.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heads: dict[bytes, int] = {}
        self._offsets: dict[bytes, int] = {b"%03x" % offset: offset for offset in range(PAGE_SIZE)}
        self._sizes: dict[bytes, int] = {b"%d" % size: size for size in range(1, _LARGEST_ACCESS + 1)}

    def __missing__(self, line: bytes) -> int:
        head, _, size = line.partition(b",")
        try:
            code = self._heads[head[:-3]]
            if self._offsets[head[-3:]] + self._sizes[size] > PAGE_SIZE:
                code = self._parse(line)
        except KeyError:
            code = self._parse(line)
        if len(self) >= _CACHED_LINES:
            self.clear()
        if code != _IGNORED:
            self[line] = code
        return code

    def _parse(self, line: bytes) -> int:
        match = _LINE.fullmatch(line)
        if match is None:
            return _IGNORED
        kind, digits, size = _KINDS[match[1]], match[2], int(match[3])
        address = int(digits, 16)
        first, last = address >> PAGE_SHIFT, (address + size - 1) >> PAGE_SHIFT
        if not 1 <= size <= _LARGEST_ACCESS or last > MAX_PAGE:
            return _IGNORED
        code = first << 2 | kind
        if len(digits) > 3:
            if len(self._heads) >= _CACHED_HEADS:
                self._heads.clear()
            self._heads[line[: match.end(2) - 3]] = code
        return code if first == last else -2 - code


class _Windows:
    """Adds access lines by the window rule; holds the counts of the window that is open."""

    def __init__(self, writer: TraceWriter, window: int) -> None:
        self.modifies = 0
        self.crossings = 0
        self._writer = writer
        self._window = window
        self._room = window
        self._counts: Counter[int] = Counter()  # keeps the order of first touch, and counts in C

    def take(self, codes: list[int]) -> None:
        if self._window == 1:
            self._in_order(codes)
            return
        start = 0
        while start < len(codes):
            part = codes[start : start + self._room]
            start += len(part)
            self._counts.update(part)
            self._room -= len(part)
            if self._room == 0:
                self.finish()

    def _in_order(self, codes: list[int]) -> None:
        add = self._writer.add
        for code, group in groupby(codes):
            count = len(list(group))
            if code >= 0 and code & 3 != _MODIFY:
                add(code >> 2, code & 3, count)
                continue
            keys = self._keys(code, count)
            for _ in range(count):
                for key in keys:
                    add(key >> 2, key & 3, 1)

    def finish(self) -> None:
        merged: dict[int, int] = {}
        for code, count in self._counts.items():
            if code >= 0 and code & 3 != _MODIFY:
                merged[code] = merged.get(code, 0) + count
                continue
            for key in self._keys(code, count):
                merged[key] = merged.get(key, 0) + count
        for key, count in merged.items():
            self._writer.add(key >> 2, key & 3, count)
        self._counts.clear()
        self._room = self._window

    def _keys(self, code: int, count: int) -> list[int]:
        """The keys (page << 2 | kind) that each of `count` access lines touches, in order, where they are
        several; the lines are counted."""
        crosses = code < 0
        if crosses:
            code = -2 - code
        page, kind = code >> 2, code & 3
        pages = [page, page + 1] if crosses else [page]
        kinds = [READ, WRITE] if kind == _MODIFY else [kind]
        self.modifies += count * (kind == _MODIFY)
        self.crossings += count * crosses
        return [page << 2 | kind for kind in kinds for page in pages]
