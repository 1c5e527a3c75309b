"""The trace file: runs of accesses to 4 KiB pages, written once, verified whole, read a block at a time.

A *run* is (page, kind, count): `count` consecutive accesses of one kind to one page. The file is MessagePack:
a header map; blocks `[runs, accesses, keys, crc32, payload]`; a trailer map with the totals and a BLAKE2b
digest of everything before. A payload is zlib over three columns, each cut into byte planes: the distinct
keys (page << 2 | kind) in order of first use, then for every run an index into them, then every run's count.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgpack

from scenarios.disk import opened, whole_file
from scenarios.usage import UsageProblem

FORMAT = "migrc-trace"
VERSION = 1
PAGE_SIZE = 4096
PAGE_SHIFT = 12

READ, WRITE, FETCH = 0, 1, 2

MAX_PAGE = (1 << 52) - 1  # a 64-bit address without its offset
MAX_COUNT = (1 << 32) - 1
BLOCK_RUNS = 16384

# No trace comes near these; a damaged length must not make the reader allocate gigabytes.
_MAX_PAYLOAD = BLOCK_RUNS * 16
_MAX_TEXT = 1 << 16
_MAX_HEADER_ENTRIES = 64
_CHUNK = 1 << 18


class TraceError(UsageProblem):
    """A trace or its source text cannot be used. One line: what, where, what would be right."""


@dataclass(slots=True, frozen=True)
class Totals:
    """What a trace adds up to. `pages` are distinct pages; `reads + writes + fetches == accesses`."""

    runs: int
    accesses: int
    pages: int
    reads: int
    writes: int
    fetches: int


class Block(NamedTuple):
    """Up to BLOCK_RUNS runs as three parallel arrays: page numbers ('Q'), kinds ('B') and counts ('I')."""

    pages: array[int]
    kinds: array[int]
    counts: array[int]


class TraceWriter:
    """Writes a trace to `path`, which appears complete or not at all.

    Use as a context manager. Runs go to a hidden file beside the target; leaving the block normally adds the
    trailer and renames it over the target, leaving it by any exception removes it and keeps what was there.
    `header` is free text about the origin (values: str or int); format, version and page size are added.
    Raises OSError when the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, str | int]) -> None:
        self.path = Path(path)
        self.header: dict[str, str | int] = {
            **header,
            "format": FORMAT,
            "version": VERSION,
            "page_size": PAGE_SIZE,
        }
        texts = [text for item in self.header.items() for text in item if isinstance(text, str)]
        if len(self.header) > _MAX_HEADER_ENTRIES or any(len(text.encode()) > _MAX_TEXT for text in texts):
            raise ValueError(f"a header has at most {_MAX_HEADER_ENTRIES} entries of {_MAX_TEXT} bytes")
        self.totals: Totals | None = None  # known once the trace is complete
        self._whole = ExitStack()
        self._file: BinaryIO
        self._digest = hashlib.blake2b(digest_size=32)
        self._keys: list[int] = []
        self._counts: list[int] = []
        self._runs = 0
        self._by_kind = [0, 0, 0]
        self._pages: set[int] = set()

    def __enter__(self) -> TraceWriter:
        self._file = self._whole.enter_context(whole_file(self.path))
        self._put(msgpack.packb(self.header))
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            with self._whole:
                self._finish()
        else:
            self._whole.__exit__(*error)

    def add(self, page: int, kind: int, count: int = 1) -> None:
        """Append `count` accesses to `page` (address >> 12); same page and kind as before extend that run.

        Raises ValueError for a page outside 0..MAX_PAGE, a kind that is not READ, WRITE or FETCH, or a count
        outside 1..MAX_COUNT.
        """
        if not (0 <= page <= MAX_PAGE and 0 <= kind <= FETCH and 1 <= count <= MAX_COUNT):
            raise ValueError(f"page {page}, kind {kind}, count {count} is not a run")
        key = page << 2 | kind
        keys, counts = self._keys, self._counts
        if keys and keys[-1] == key and counts[-1] + count <= MAX_COUNT:
            counts[-1] += count
            return
        if len(keys) == BLOCK_RUNS:
            self._flush()
        keys.append(key)
        counts.append(count)

    def _flush(self) -> None:
        keys, counts = self._keys, self._counts
        if not keys:
            return
        table: dict[int, int] = {}
        indices = array("H", [table.setdefault(key, len(table)) for key in keys])
        for key, count in zip(keys, counts, strict=True):
            self._by_kind[key & 3] += count
        self._pages.update(key >> 2 for key in table)
        self._runs += len(keys)
        columns = (array("Q", table), indices, array("I", counts))
        payload = zlib.compress(b"".join(map(_planes, columns)), 9)
        self._put(msgpack.packb([len(keys), sum(counts), len(table), zlib.crc32(payload), payload]))
        keys.clear()
        counts.clear()

    def _finish(self) -> None:
        self._flush()
        reads, writes, fetches = self._by_kind
        self.totals = Totals(self._runs, sum(self._by_kind), len(self._pages), reads, writes, fetches)
        totals = asdict(self.totals)
        # The digest also covers the totals, so that no byte of the file can change unseen.
        self._digest.update(msgpack.packb(totals))
        self._file.write(msgpack.packb({"totals": totals, "digest": self._digest.digest()}))

    def _put(self, packed: bytes) -> None:
        self._digest.update(packed)
        self._file.write(packed)


@dataclass(frozen=True)
class Trace:
    """A verified trace of `size` bytes; `read_trace` makes one. Iterating opens the file afresh, a block in
    memory."""

    path: Path
    header: dict[str, Any]
    totals: Totals
    block_count: int
    size: int

    def blocks(self) -> Iterator[Block]:
        """The runs in order, up to BLOCK_RUNS at a time. TraceError if the file has changed since."""
        seen = 0
        with opened(self.path) as file:
            for number, (offset, item) in enumerate(_objects(self.path, file)):
                if isinstance(item, list):
                    block = _decode(self.path, number, offset, item)
                    seen += len(block.pages)
                    yield block
        if seen != self.totals.runs:
            raise TraceError(f"{self.path}: changed while it was read: {seen} runs, not {self.totals.runs}")

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """The runs in order, each as (page, kind, count). Errors as `blocks`."""
        for block in self.blocks():
            yield from zip(block.pages, block.kinds, block.counts, strict=True)


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Open and verify a trace: its structure, every block's CRC, the digest of the whole.

    Raises TraceError for anything but a complete, undamaged trace of this version, and OSError when the file
    cannot be read. Takes one pass over the compressed bytes and the memory of one block.
    """
    path = Path(path)
    header: dict[str, Any] = {}
    trailer: dict[str, Any] | None = None
    blocks = runs = accesses = start = 0
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        for number, (offset, item) in enumerate(_objects(path, file)):
            start = offset
            if number == 0:
                header = _header(path, item)
            elif trailer is not None:
                raise TraceError(
                    f"{path}: damaged: bytes after the trailer, at byte {offset}; import it again"
                )
            elif isinstance(item, dict):
                trailer = item
            else:
                block_runs, block_accesses, _, _ = _block_fields(path, number, offset, item)
                blocks, runs, accesses = blocks + 1, runs + block_runs, accesses + block_accesses
        if not header:
            raise _foreign(path)
        if trailer is None:
            raise TraceError(
                f"{path}: truncated: {size} bytes end after block {blocks} without a trailer; import it again"
            )
        digest = hashlib.blake2b(digest_size=32)
        file.seek(0)
        left = start
        while left and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
        rest = file.read(_CHUNK)
    checked: Totals | None = None
    totals = trailer.get("totals")
    if isinstance(totals, dict):
        # Packing again what was unpacked compares every byte of the trailer, however it may be encoded.
        with suppress(TypeError, ValueError, OverflowError):
            digest.update(msgpack.packb(totals))
            if rest == msgpack.packb({"totals": totals, "digest": digest.digest()}):
                checked = Totals(**totals)
    if checked is None or (checked.runs, checked.accesses) != (runs, accesses):
        raise TraceError(
            f"{path}: damaged: the checksum at byte {start} does not match; import or copy it again"
        )
    return Trace(path, header, checked, blocks, size)


def _objects(path: Path, file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The file's MessagePack objects, each with the byte offset at which it begins."""
    unpacker = msgpack.Unpacker(
        file,
        max_buffer_size=_MAX_PAYLOAD + _CHUNK,
        max_bin_len=_MAX_PAYLOAD,
        max_str_len=_MAX_TEXT,
        max_array_len=8,
        max_map_len=_MAX_HEADER_ENTRIES,
        max_ext_len=0,
    )
    number = 0
    while True:
        offset = unpacker.tell()
        try:
            item = unpacker.unpack()
        except msgpack.OutOfData:
            # Raised at a clean end and inside an object alike. The missing trailer tells them apart; bytes
            # after a trailer are found by comparing it with all that follows the blocks.
            return
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
            if number == 0:
                raise _foreign(path) from None
            raise TraceError(
                f"{path}: damaged: block {number} at byte {offset} is not MessagePack; import it again"
            ) from None
        yield offset, item
        number += 1


def _foreign(path: Path) -> TraceError:
    return TraceError(
        f"{path}: not a trace: byte 0 does not begin a {FORMAT} header; "
        "make a trace with: migrc trace import lackey FILE -o OUT"
    )


def _header(path: Path, item: object) -> dict[str, Any]:
    if not isinstance(item, dict) or item.get("format") != FORMAT:
        raise _foreign(path)
    if item.get("version") != VERSION:
        raise TraceError(f"{path}: trace version {item.get('version')!r}; this program reads {VERSION}")
    if item.get("page_size") != PAGE_SIZE:
        raise TraceError(f"{path}: page size {item.get('page_size')!r}; this program reads {PAGE_SIZE}")
    return item


def _block_fields(path: Path, number: int, offset: int, item: object) -> tuple[int, int, int, bytes]:
    """(runs, accesses, keys, payload) of block `number` (counted from 1), once its CRC has been checked."""
    match item:
        case [int(runs), int(accesses), int(keys), int(crc), bytes(payload)]:
            if 1 <= keys <= runs <= min(BLOCK_RUNS, accesses) and zlib.crc32(payload) == crc:
                return runs, accesses, keys, payload
    raise TraceError(f"{path}: damaged: block {number} at byte {offset} fails its checksum; import it again")


def _decode(path: Path, number: int, offset: int, item: object) -> Block:
    runs, accesses, keys, payload = _block_fields(path, number, offset, item)
    size = 8 * keys + 2 * runs + 4 * runs
    try:
        raw = zlib.decompressobj().decompress(payload, size + 1)
        if len(raw) != size:
            raise ValueError
        table = _column("Q", raw[: 8 * keys])
        indices = _column("H", raw[8 * keys : 8 * keys + 2 * runs])
        counts = _column("I", raw[8 * keys + 2 * runs :])
        if sum(counts) != accesses or any(key & 3 > FETCH for key in table):
            raise ValueError
        pages = [key >> 2 for key in table]
        kinds = [key & 3 for key in table]
        return Block(
            array("Q", map(pages.__getitem__, indices)), array("B", map(kinds.__getitem__, indices)), counts
        )
    except (ValueError, IndexError, zlib.error):
        raise TraceError(
            f"{path}: block {number} at byte {offset} does not hold its {runs} runs; import it again"
        ) from None


def _planes(column: array[int]) -> bytes:
    """All lowest bytes, then all second bytes, ...: zlib eats the high planes, nearly constant."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    raw = column.tobytes()
    return b"".join(raw[plane :: column.itemsize] for plane in range(column.itemsize))


def _column(typecode: str, planes: bytes) -> array[int]:
    column: array[int] = array(typecode)
    length = len(planes) // column.itemsize
    raw = bytearray(len(planes))
    for plane in range(column.itemsize):
        raw[plane :: column.itemsize] = planes[plane * length : (plane + 1) * length]
    column.frombytes(bytes(raw))
    if sys.byteorder == "big":
        column.byteswap()
    return column
