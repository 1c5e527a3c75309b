"""A file of events: gzip around MessagePack, a header and then one list for each event.

Names stand in it once: an event has the number of its name. Times of one CPU do not go back. Nothing in it is
executed.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgpack
from pydantic import Field, TypeAdapter

from scenarios.disk import Plain, file_problems, opened, whole_file
from scenarios.events.event import Event, Judge, What

SUFFIX: Final = ".mev"
MAGIC: Final = "migrc-events"
FORMAT: Final = 1
_RIGHT: Final = "a file of events that migrc run --events made"
_MOST_NAMES: Final = 1 << 20
_MOST_EVENTS: Final = 1 << 26
_LONGEST: Final = 1 << 16  # bytes of a name
_CHUNK: Final = 1 << 16
ZIPPED: Final = b"\x1f\x8b"
"""What it begins with, as every gzip file does."""

_EVENT: Final = TypeAdapter(tuple[int, int, What, int, tuple[int, ...]])


class EventHeader(Plain):
    """What the events are of. `title` says which run, in one line; `unit` what their times are;
    `schedule`, for a litmus test, the way it went."""

    magic: Literal["migrc-events"] = "migrc-events"
    format: Literal[1] = 1
    title: str = Field(max_length=1000)
    cpus: int = Field(ge=1, le=4096)
    unit: Literal["ns", "steps"]
    schedule: str = Field(default="", max_length=1 << 20)
    project: str = Field(default="", max_length=100)


def is_event_file(path: Path) -> bool:
    """Whether it begins as one does."""
    try:
        with opened(path) as file:
            return file.read(2) == ZIPPED
    except (OSError, ValueError):
        return False


@contextmanager
def written(path: Path, header: EventHeader) -> Iterator[Callable[[Event], None]]:
    """To hand events to; the file gets its name when the block has ended well. UsageProblem if it cannot."""
    with (
        file_problems(f"--events {path}", "a file that can be written"),
        whole_file(path) as file,
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0, filename="") as zipped,
    ):
        pack = msgpack.Packer().pack
        zipped.write(pack(header.model_dump()))
        names: dict[str, int] = {}

        def emit(event: Event) -> None:
            at, cpu, what, name, values = event
            number = names.get(name)
            if number is None:
                number = names[name] = len(names)
                zipped.write(pack(name))
            zipped.write(pack((at, cpu, what, number, values)))

        yield emit


def read(path: Path) -> tuple[EventHeader, Iterator[Event]]:
    """The header, and the events one by one. UsageProblem, then too, if it is no such file."""
    items = _items(path)
    with file_problems(str(path), _RIGHT):
        header = EventHeader.model_validate(next(items, None))
    return header, _events(path, header, items)


def _events(path: Path, header: EventHeader, items: Iterable[Any]) -> Iterator[Event]:
    names: list[str] = []
    judge = Judge(header.cpus)
    count = 0
    for item in items:
        with file_problems(f"{path}: event {count + 1}", _RIGHT):
            if isinstance(item, str):
                names.append(item)
                if len(names) > _MOST_NAMES:
                    raise ValueError(f"more than {_MOST_NAMES:,} names")
                continue
            at, cpu, what, number, values = _EVENT.validate_python(item)
            if not 0 <= number < len(names):
                raise ValueError(f"there is no name {number}")
            event = Event(at, cpu, what, names[number], values)
            judge.look(event)
            count += 1
            if count > _MOST_EVENTS:
                raise ValueError(f"more than {_MOST_EVENTS:,} events")
        yield event


def _items(path: Path) -> Iterator[Any]:
    """What is in the file, as MessagePack has it."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=_LONGEST * 4,
        max_str_len=_LONGEST,
        max_array_len=4200,
        max_map_len=16,
        use_list=False,
        max_bin_len=0,
        max_ext_len=0,
    )
    with file_problems(str(path), _RIGHT), opened(path) as file, gzip.GzipFile(fileobj=file) as zipped:
        try:
            while chunk := zipped.read(_CHUNK):
                unpacker.feed(chunk)
                yield from unpacker
        except (EOFError, zlib.error, msgpack.UnpackException) as problem:
            raise ValueError(str(problem) or "it is cut") from None
