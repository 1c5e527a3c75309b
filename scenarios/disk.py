"""Files of users: what is wrong with one, in one line, and one that is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from scenarios.usage import UsageProblem


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
