"""Files of users: what is wrong with one, in one line, and one that is written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from scenarios.usage import UsageProblem

_BEGINNING: Final = 4096


class Plain(BaseModel):
    """Values as a file has them, checked when they are read; nothing else may be there."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


@contextmanager
def file_problems(what: str, right: str) -> Iterator[None]:
    """What the system or a model says of a file becomes a UsageProblem, `what: reason; right`.

    So does any other ValueError: Python has it for names that cannot be, we for what a file must not hold.
    """
    try:
        yield
    except OSError as problem:
        raise UsageProblem(f"{what}: {problem.strerror}; {right}") from None
    except ValidationError as problem:
        error = problem.errors()[0]
        where = ".".join(str(part) for part in error["loc"]) or "it"
        raise UsageProblem(f"{what}: {where}: {error['msg']}; {right}") from None
    except ValueError as problem:
        raise UsageProblem(f"{what}: {problem}; {right}") from None


def opened(path: Path) -> BinaryIO:
    """A user's file, to be read. OSError if it cannot be, also for a pipe or device, which may never end."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return open(file, "rb")
    os.close(file)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def content(path: Path) -> bytes:
    """All of a user's file. OSError as `opened`."""
    with opened(path) as file:
        return file.read()


def check_replaceable(path: Path, mark: bytes, option: str) -> None:
    """UsageProblem if a file of another kind is there, which somebody would miss."""
    if path.is_file() and path.stat().st_size:
        with file_problems(f"{option} {path}", "another name"):
            with opened(path) as file:
                begins = file.read(_BEGINNING)
            if mark not in begins:
                raise ValueError("a file of another kind is there, and would be lost")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """To be written: it gets its name when the block has ended well, and is hidden beside it until then.

    OSError if the disk does not let us.
    """
    partial = path.with_name(f".{path.name[:60]}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
