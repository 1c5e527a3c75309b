"""A witness file: how one broken rule is reached, so that anybody can replay it.

MessagePack, one map with a magic key; no pickle, so a stranger's file is only data. It names the test, the
policy and the architecture and holds the schedule as text. It appears under its name only when complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgpack
from pydantic import Field

from emulator.checks.violation import Violation
from emulator.explore.schedule import parse_schedule
from emulator.hardware.cpu import Transition
from scenarios.disk import content, file_problems, whole_file
from scenarios.subjects.header import Ran
from scenarios.subjects.mmus import check_mmu
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject

MAGIC: Final = "migrc-witness"
FORMAT: Final = 1
SUFFIX: Final = ".mpk"
_MAX_BYTES: Final = 64 << 20
_RIGHT: Final = "a witness file that migrc check saved"


class Witness(Ran):
    """One broken rule and the way there. `seed`, `strategy` and `run` say how it was found."""

    litmus: str = Field(min_length=1, max_length=200)
    schedule: str
    rule: str = Field(min_length=1)
    text: str = ""
    strategy: str = ""
    run: int = 0

    @classmethod
    def of(
        cls, subject: Subject, schedule: str, violation: Violation, seed: int, strategy: str, run: int = 0
    ) -> Witness:
        """How the subject breaks a rule."""
        return cls(
            **subject.ran(),
            litmus=subject.name,
            schedule=schedule,
            rule=violation.rule,
            text=violation.text,
            seed=seed,
            strategy=strategy,
            run=run,
        )

    @property
    def subject(self) -> Subject:
        return Subject(
            LitmusName(self.litmus, self.file, self.kernel),
            self.policy,
            self.arch,
            heed=self.heed,
            mmu=self.mmu,
        )

    @property
    def transitions(self) -> tuple[Transition, ...]:
        return parse_schedule(self.schedule)

    def name(self) -> str:
        """A name for its file: `test--policy--arch.mpk`, letters that are safe everywhere."""
        return self.subject.file_name() + SUFFIX


def save(witness: Witness, path: Path) -> None:
    """Write it whole or not at all, making its directory. UsageProblem if the disk does not let us."""
    with file_problems(f"{path}: the witness cannot be written", "a file in a folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(msgpack.packb({MAGIC: FORMAT, **witness.model_dump()}))


def load(path: Path) -> Witness:
    """Read a witness. UsageProblem, in one line, for every file that is none."""
    with file_problems(str(path), _RIGHT):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError("no regular file")
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("larger than 64 MiB")
        document = _unpacked(content(path))
        if document.pop(MAGIC) != FORMAT:
            raise ValueError(f"a witness of another format; this version of migrc reads format {FORMAT}")
        witness = Witness.model_validate(document)
        witness.transitions  # noqa: B018
    check_mmu(witness.mmu, str(path))
    return witness


def _unpacked(raw: bytes) -> dict[str, Any]:
    """The map in the file, its magic key in it. ValueError if there is none."""
    unpacker = msgpack.Unpacker(use_list=False, strict_map_key=True, max_buffer_size=_MAX_BYTES)
    unpacker.feed(raw)
    begins_well = MAGIC.encode() in raw[:64]
    try:
        document = unpacker.unpack()
    except msgpack.exceptions.OutOfData:
        raise ValueError("truncated" if begins_well else "not a witness") from None
    except (ValueError, msgpack.exceptions.UnpackException) as problem:
        raise ValueError(f"not a witness: {problem}" if begins_well else "not a witness") from None
    if not isinstance(document, dict) or MAGIC not in document:
        raise ValueError("not a witness")
    if unpacker.tell() != len(raw):
        raise ValueError(f"{len(raw) - unpacker.tell()} bytes too many at its end")
    return document
