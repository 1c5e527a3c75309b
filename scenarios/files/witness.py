"""A witness file: how one broken rule is reached, so that anybody can replay it.

MessagePack, one map with a magic key; no pickle, so a stranger's file is only data. It names the test, the
policy and the architecture and holds the schedule as text. It appears under its name only when complete.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgpack
from pydantic import Field, ValidationError

from emulator.checks.heed import Heed
from emulator.checks.violation import Violation
from emulator.explore.schedule import ScheduleProblem, parse_schedule
from emulator.hardware.cpu import Transition
from scenarios.files.recording import first_error
from scenarios.subjects.header import Plain, project_version
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem

MAGIC: Final = "migrc-witness"
FORMAT: Final = 1
SUFFIX: Final = ".mpk"
_MAX_BYTES: Final = 64 << 20
_RIGHT: Final = "a witness file that migrc check saved"


class Witness(Plain):
    """One broken rule and the way there. `file` defines the test if it is not a shipped one.

    `seed`, `strategy` and `run` say how it was found, `rules` and `ignored` which rules counted; `project` is
    the version that found it.
    """

    litmus: str = Field(min_length=1, max_length=200)
    file: str = Field(default="", max_length=4096)
    policy: str = Field(min_length=1, max_length=200)
    arch: Literal["sc", "x86", "riscv"]
    schedule: str
    rule: str = Field(min_length=1)
    text: str = ""
    seed: int = Field(default=0, ge=0)
    strategy: str = ""
    run: int = 0
    project: str = ""
    rules: list[str] = Field(default=[])
    ignored: list[str] = Field(default=[])

    @classmethod
    def of(
        cls, subject: Subject, schedule: str, violation: Violation, seed: int, strategy: str, run: int = 0
    ) -> Witness:
        """How the subject breaks a rule."""
        return cls(
            litmus=subject.name,
            file=subject.test.file,
            policy=subject.policy,
            arch=subject.arch,  # type: ignore[arg-type]
            schedule=schedule,
            rule=violation.rule,
            text=violation.text,
            seed=seed,
            strategy=strategy,
            run=run,
            project=project_version(),
            rules=list(subject.heed.rules),
            ignored=list(subject.heed.ignored),
        )

    @property
    def subject(self) -> Subject:
        """What breaks the rule."""
        heed = Heed(tuple(self.rules), tuple(self.ignored))
        return Subject(LitmusName(self.litmus, self.file), self.policy, self.arch, heed=heed)

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """The schedule itself."""
        return parse_schedule(self.schedule)

    def name(self) -> str:
        """A name for its file: `test--policy--arch.mpk`, letters that are safe everywhere."""
        return self.subject.file_name() + SUFFIX


def save(witness: Witness, path: Path) -> None:
    """Write it whole or not at all, making its directory. UsageProblem if the disk does not let us."""
    document = {MAGIC: FORMAT, **witness.model_dump()}
    packed: bytes = msgpack.packb(document)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:60]}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp lets only the owner read; a witness is to be handed on.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as problem:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(problem, OSError):
            raise UsageProblem(f"{path}: the witness cannot be written: {problem.strerror}") from None
        raise


def load(path: Path) -> Witness:
    """Read a witness. UsageProblem, in one line, for every file that is none."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UsageProblem(f"{path}: no regular file; {_RIGHT}")
        if path.stat().st_size > _MAX_BYTES:
            raise UsageProblem(f"{path}: larger than 64 MiB; {_RIGHT}")
        raw = path.read_bytes()
    except OSError as problem:
        raise UsageProblem(f"{path}: {problem.strerror}; {_RIGHT}") from None
    document = _unpacked(path, raw)
    if document.pop(MAGIC) != FORMAT:
        raise UsageProblem(
            f"{path}: a witness of another format; this version of migrc reads format {FORMAT}"
        )
    try:
        witness = Witness.model_validate(document)
        witness.transitions  # noqa: B018
    except ValidationError as problem:
        raise UsageProblem(f"{path}: {first_error(problem)}; {_RIGHT}") from None
    except ScheduleProblem as problem:
        raise UsageProblem(f"{path}: {problem}; {_RIGHT}") from None
    return witness


def _unpacked(path: Path, raw: bytes) -> dict[str, Any]:
    """The map in the file, its magic key in it."""
    unpacker = msgpack.Unpacker(strict_map_key=True, max_buffer_size=_MAX_BYTES)
    unpacker.feed(raw)
    try:
        document = unpacker.unpack()
    except msgpack.exceptions.OutOfData:
        kind = "truncated" if MAGIC.encode() in raw[:64] else "not a witness"
        raise UsageProblem(f"{path}: {kind}; {_RIGHT}") from None
    except (ValueError, msgpack.exceptions.UnpackException) as problem:
        detail = f": {problem}" if MAGIC.encode() in raw[:64] else ""
        raise UsageProblem(f"{path}: not a witness{detail}; {_RIGHT}") from None
    if not isinstance(document, dict) or MAGIC not in document:
        raise UsageProblem(f"{path}: not a witness; {_RIGHT}")
    if unpacker.tell() != len(raw):
        raise UsageProblem(f"{path}: {len(raw) - unpacker.tell()} bytes too many at its end; {_RIGHT}")
    return document
