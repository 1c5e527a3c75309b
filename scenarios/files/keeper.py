"""Where the recordings of `migrc run` go: into the files that were asked for, else away if no rule broke."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from actors.session import LiveResult
from scenarios.disk import file_problems
from scenarios.files.recording import SUFFIX, End, Writer, tlb_digest
from scenarios.subjects.header import Header
from scenarios.usage import UsageProblem

FOLDER: Final = Path("recordings")
"""Of the current directory: recordings of runs that broke a rule."""

Tell = Callable[[str], None]


class Keeper:
    """The recording of one run, under way. `path` is where it stays, None while and if it does not."""

    def __init__(self, writer: Writer | None, path: Path | None, tell: Tell) -> None:
        self.path = path
        self.problem: UsageProblem | None = None
        self._writer = writer
        self._asked = path is not None
        self._tell = tell

    @classmethod
    @contextmanager
    def of(cls, header: Header, record: Path | None, tell: Tell) -> Iterator[Keeper]:
        """Keep the recording of one run: in `record`, else in a temporary file that ends with the block."""
        with ExitStack() as opened:
            writer = None
            try:
                if (file := record) is None:
                    folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="migrc-recording-"))
                    file = Path(folder) / f"run{SUFFIX}"
                writer = opened.enter_context(Writer(file, header))
            except (UsageProblem, OSError) as problem:
                if record is not None:
                    raise
                tell(f"nothing is recorded: {problem}")
            try:
                yield cls(writer, record, tell)
            except BaseException:
                if record is not None:
                    tell(f"{record}: recorded up to here")
                raise

    def keep(self, events: tuple[int, ...], checksum: int) -> None:
        """Write a block; one that nobody asked for does not end the run if the disk is full."""
        if self._writer is None:
            return
        try:
            self._writer.keep(events, checksum)
        except UsageProblem as problem:
            if self._asked:
                raise
            self._tell(f"{problem.message}; going on without")
            self._writer = None

    def end(self, result: LiveResult, name: str, wanted: bool = True) -> None:
        """The run is over. A recording that nobody asked for moves to FOLDER if a rule broke and `wanted`.

        One that cannot be written is told and no more, or `problem` if it was asked for: what was found does
        not depend on a disk.
        """
        if self._writer is None:
            return
        figures = result.memory
        end = End(
            transitions=figures["transitions"],
            memory_digest=figures["memory_digest"],
            tlb_digest=tlb_digest(result.tlbs) if result.tlbs else "",
            violations=tuple(result.violations),
        )
        try:
            self._writer.end(end)
            if self._asked:
                self._tell(f"recorded in {self.path}")
            elif result.violations and wanted:
                self.path = _moved(self._writer.path, name)
                self._tell(f"a rule broke; the recording is {self.path}")
        except UsageProblem as problem:
            if self._asked:
                self.problem = problem
            else:
                self._tell(problem.message)


def _moved(file: Path, name: str) -> Path:
    """Move into FOLDER under a name that is free there."""
    with file_problems(f"{FOLDER}: the recording cannot be kept", "a folder to keep it in"):
        FOLDER.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            target = FOLDER / (f"{name}{SUFFIX}" if number == 1 else f"{name}-{number}{SUFFIX}")
            with suppress(FileExistsError):
                target.touch(exist_ok=False)
                shutil.move(file, target)
                return target
    raise AssertionError("numbers do not end")
