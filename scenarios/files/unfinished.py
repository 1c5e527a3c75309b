"""A file that holds a search of every interleaving that is not finished, so that it can go on.

A line of JSON says which search it is and how far; behind it are blocks of compressed words, and at the end
the hash of it all. No pickle: a stranger's file is only data. It appears under its name only when complete.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Final

from pydantic import TypeAdapter

from emulator.explore.compiled.sharing_out import Unfinished
from scenarios.disk import file_problems, opened, whole_file
from scenarios.usage import UsageProblem

MAGIC: Final = b"migrc-unfinished 1\n"
_LENGTH: Final = struct.Struct("<I")
_END: Final = 0xFFFFFFFF
_HASH: Final = 32
_LEVEL: Final = 1
_UNFINISHED: Final = TypeAdapter(Unfinished)
_MOST_HEAD: Final = 1 << 20


class UnfinishedFile:
    """The file of one search, whose `identity` says all that makes it this one.

    UsageProblem if the file is something else, damaged, or cannot be written.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self._identity = json.loads(json.dumps(identity))
        with file_problems(self._what, "the path of a file"):
            if path.exists() and not path.is_file():
                raise ValueError("no regular file")
            if not path.parent.is_dir():
                raise ValueError(f"no directory {path.parent}")

    @property
    def _what(self) -> str:
        return f"--resume {self.path}"

    def exists(self) -> bool:
        """There is something to go on with."""
        return self.path.exists()

    def remove(self) -> None:
        """The search is finished."""
        with file_problems(self._what, "a file that can be removed"):
            self.path.unlink(missing_ok=True)

    def save(self, unfinished: Unfinished, blocks: Iterable[bytes]) -> None:
        """Write it, whole or not at all."""
        head = self._identity | {"at": unfinished._asdict() | {"shares": [*map(list, unfinished.shares)]}}
        digest = blake2b(digest_size=_HASH)
        with file_problems(self._what, "a file that can be written"), whole_file(self.path) as file:

            def put(part: bytes) -> None:
                file.write(part)
                digest.update(part)

            put(MAGIC)
            put(json.dumps(head).encode() + b"\n")
            for block in blocks:
                packed = zlib.compress(block, _LEVEL)
                put(_LENGTH.pack(len(packed)))
                put(packed)
            put(_LENGTH.pack(_END))
            file.write(digest.digest())

    def load(self) -> tuple[Unfinished, Iterator[bytes]]:
        """Where the search was, and its blocks as `save` got them; all has been checked by then."""
        with file_problems(self._what, "a file that migrc check --resume has written"):
            with opened(self.path) as file:
                head = self._head(file)
                self._check_whole(file)
            return _UNFINISHED.validate_python(head.get("at")), self._blocks()

    def _head(self, file: IO[bytes]) -> dict[str, Any]:
        if file.readline(len(MAGIC)) != MAGIC:
            raise ValueError("no unfinished search")
        try:
            head: Any = json.loads(file.readline(_MOST_HEAD))
        except (ValueError, RecursionError):
            raise ValueError("damaged") from None
        if not isinstance(head, dict):
            raise ValueError("damaged")
        for key, value in self._identity.items():
            if key not in head:
                raise ValueError("damaged")
            if head[key] != value:
                raise UsageProblem(
                    f"{self._what}: holds another search ({key} differs); another file, or the same command"
                )
        return head

    def _check_whole(self, file: IO[bytes]) -> None:
        left = self.path.stat().st_size - _HASH
        digest = blake2b(digest_size=_HASH)
        file.seek(0)
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
        if left or file.read() != digest.digest():
            raise ValueError("damaged, or cut short")

    def _blocks(self) -> Iterator[bytes]:
        with opened(self.path) as file:
            self._head(file)
            while (length := _LENGTH.unpack(file.read(_LENGTH.size))[0]) != _END:
                yield zlib.decompress(file.read(length))
