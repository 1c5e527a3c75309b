"""A recording: the order of everything that happened in one live run, in a file that grows while it runs.

One line of text names the format; frames follow, each its length, the CRC-32 of its content and the content
as MessagePack: a header (what machine ran), blocks (events and checksum, see `actors.recorder`) and an end.
A file that was cut, or damaged later, is good up to its last whole frame. Nothing in it is executed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgpack
from pydantic import Field, ValidationError, field_serializer

from actors.recorder import KINDS
from emulator.checks.violation import Violation
from emulator.machine.builder import Machine
from emulator.measure.digest import digest
from scenarios.disk import Plain, file_problems, opened
from scenarios.subjects.header import Header, TraceFile, content_hash
from scenarios.subjects.mmus import check_mmu
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem
from scenarios.workloads.kinds import workload_of
from scenarios.workloads.settings import Workload

MAGIC: Final = b"migrc-recording "
FORMAT: Final = 2
SUFFIX: Final = ".mrec"
_FRAME: Final = struct.Struct(">II")  # length and CRC-32 of what follows
_MAX_FRAME: Final = 64 << 20
_MAX_LINE: Final = 64
_HEADER, _BLOCK, _END = range(3)
_RIGHT: Final = "a recording that migrc run made"
_SHIPPED: Final = Path(__file__).parents[1] / "traces" / "data"

MOST_TRANSITIONS: Final = {"litmus": 10**6, "workload": 2**32}
"""Of any run: a litmus test is taken to have no end much earlier, and a workload takes days for so many."""

Block = tuple[tuple[int, ...], int]


class End(Plain):
    """What the run itself found: digests of memory and of all TLBs as they were at its end."""

    transitions: int = Field(ge=0)
    memory_digest: str
    tlb_digest: str
    violations: tuple[Violation, ...]

    @field_serializer("violations")
    def _by_name(self, violations: tuple[Violation, ...]) -> list[dict[str, Any]]:
        return [one._asdict() for one in violations]


def tlb_digest(tlbs: Sequence[Any]) -> str:
    """One name for the TLB entries of all CPUs."""
    return digest(tuple(tuple(tuple(entry) for entry in entries) for entries in tlbs))


class Writer:
    """Writes a recording, block by block; whatever has been handed over survives the end of this process.

    UsageProblem if the file cannot be written. To be used in a `with` block, which closes it.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        with self._writable(), ExitStack() as opened:
            self._file: Any = opened.enter_context(path.open("wb", buffering=0))
            self._file.write(MAGIC + b"%d\n" % FORMAT)
            self._frame((_HEADER, header.model_dump()))
            opened.pop_all()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()

    def keep(self, events: Sequence[int], checksum: int) -> None:
        self._frame((_BLOCK, events, checksum))

    def end(self, end: End) -> None:
        """Append how the run ended: then the recording is whole."""
        self._frame((_END, end.model_dump()))

    def _frame(self, content: tuple[Any, ...]) -> None:
        packed: bytes = msgpack.packb(content)
        # One write, so that what another process reads meanwhile is cut between frames.
        left = memoryview(_FRAME.pack(len(packed), zlib.crc32(packed)) + packed)
        with self._writable():
            while left:
                left = left[self._file.write(left) :]

    def _writable(self) -> AbstractContextManager[None]:
        return file_problems(f"{self.path}: the recording cannot be written", "a file in a folder")


class Recording:
    """Reads a recording: the header at once, then `blocks`. UsageProblem if the file is none.

    After the last block `end` is set, or else `problem` says how much of the file could be used. `position`
    and `size` are in bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end: End | None = None
        self.damaged = False
        self.problem = ""
        self.position = 0
        with file_problems(str(path), _RIGHT), ExitStack() as stack:
            self._file: BinaryIO = stack.enter_context(opened(path))
            self.size = path.stat().st_size
            self._check_format()
            self.header = self._read_header()
            stack.pop_all()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _check_format(self) -> None:
        line, end, _ = self._file.read(_MAX_LINE).partition(b"\n")
        if not line.startswith(MAGIC) or not end:
            raise ValueError("not a recording")
        if line[len(MAGIC) :] != b"%d" % FORMAT:
            raise UsageProblem(
                f"{self.path}: a recording of another format; this version of migrc reads format {FORMAT}: "
                "record it again, or replay it with the version that made it"
            )
        self.position = len(line) + 1
        self._file.seek(self.position)

    def _read_header(self) -> Header:
        content = self._next()
        if content is None or content[0] != _HEADER or len(content) != 2:
            raise ValueError(
                f"nothing of it can be used: {self.problem or 'it does not begin with a header'}"
            )
        with file_problems(f"{self.path}: header", _RIGHT):
            return Header.model_validate(content[1])

    def subject(self) -> Subject:
        """What was recorded. UsageProblem if this version has no such thing."""
        header = self.header
        what: LitmusName | Workload = LitmusName(header.scenario, header.file, header.kernel)
        if header.kind == "workload":
            with file_problems(f"{self.path}: workload", "a recording of this version of migrc"):
                what = workload_of(header.workload)
        check_mmu(header.mmu, str(self.path))
        trace = trace_of(header.trace, self.path)
        who = (what, header.policy, header.arch, header.cpus, header.seed)
        return Subject(*who, trace, header.heed, header.mmu)

    def machine(self) -> Machine:
        """The machine that was recorded. UsageProblem if it cannot be built here."""
        header = self.header
        machine = self.subject().machine()
        if machine.cpus != header.cpus:
            raise UsageProblem(
                f"{self.path}: recorded with {header.cpus} CPUs, but {header.scenario} has "
                f"{machine.cpus} by now; the version that recorded it ({header.project or 'unknown'})"
            )
        return machine

    def blocks(self) -> Iterator[Block]:
        """Every good block, in order; to be called once."""
        number = taken = 0
        while (content := self._next()) is not None:
            if content[0] == _END:
                self._take_end(content, number)
                return
            if not self._good_block(content):
                self._unusable(f"block {number + 1} has other content than events and a checksum", True)
                return
            taken += sum(content[1][2::3])
            if taken > MOST_TRANSITIONS[self.header.kind]:
                self._unusable(f"block {number + 1} has more transitions than a run takes", True)
                return
            number += 1
            yield content[1], content[2]

    def _take_end(self, content: tuple[Any, ...], blocks: int) -> None:
        try:
            end = End.model_validate(content[1] if len(content) == 2 else None)
        except ValidationError:
            self._unusable(f"the end after block {blocks} has other content than an end", True)
            return
        if self.position < self.size:
            self._unusable(f"{self.size - self.position} bytes too many after its end", True)
        self.end = end

    def _good_block(self, content: tuple[Any, ...]) -> bool:
        if len(content) != 3 or content[0] != _BLOCK:
            return False
        events, checksum = content[1:]
        return (
            type(checksum) is int
            and type(events) is tuple
            and len(events) % 3 == 0
            and all(type(value) is int and value >= 0 for value in events)
            and all(who < KINDS * self.header.cpus for who in events[::3])
            and all(count > 0 for count in events[2::3])
        )

    def _next(self) -> tuple[Any, ...] | None:
        """The content of the next frame; None, with `problem` set, if there is no good one."""
        head = self._file.read(_FRAME.size)
        if len(head) < _FRAME.size:
            what = "it ends without an end frame" if not head else "it ends in the middle of a frame"
            self._unusable(what, False)
            return None
        length, checksum = _FRAME.unpack(head)
        if length > _MAX_FRAME:
            self._unusable("a frame's length is impossible", True)
            return None
        packed = self._file.read(length)
        if len(packed) < length:
            self._unusable("it ends in the middle of a frame", False)
            return None
        if zlib.crc32(packed) != checksum:
            self._unusable("a frame's content does not match its CRC", True)
            return None
        try:
            content = msgpack.unpackb(packed, use_list=False)
        except (ValueError, msgpack.exceptions.UnpackException):
            content = None
        if type(content) is not tuple or not content:
            self._unusable("a frame's content is not what belongs there", True)
            return None
        self.position += _FRAME.size + length
        return content

    def _unusable(self, what: str, damaged: bool) -> None:
        """Nothing from `position` on can be used."""
        self.damaged = damaged
        self.problem = f"{'damaged' if damaged else 'cut'} at byte {self.position:,}: {what}"


def is_recording(path: Path) -> bool:
    """The file begins as a recording does, of whatever format."""
    try:
        with opened(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def trace_of(trace: TraceFile | None, beside: Path) -> Path | None:
    """The trace that was replayed: where it was, beside what says so, or the shipped one of its name.

    UsageProblem if it is nowhere, or another one.
    """
    if trace is None:
        return None
    name = Path(trace.path).name
    places = (Path(trace.path), beside.parent / name, _SHIPPED / name)
    found = [path for path in places if path.is_file()]
    for path in found:
        if content_hash(path) == trace.blake2b:
            return path
    if found:
        raise UsageProblem(
            f"{found[0]}: not the trace that was recorded with; the file with BLAKE2b {trace.blake2b}"
        )
    raise UsageProblem(f"{beside}: needs the trace {trace.path}; there, or beside it")
