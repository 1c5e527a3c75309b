"""Every interleaving of one subject: alone or shared out, within memory, ended by Ctrl-C, gone on with.

What ends a search before its end is said in a word: `time`, `states`, `memory`, `interrupted`, a signal, or
which worker is gone.
"""

from __future__ import annotations

import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from actors.errors import SessionError
from actors.resident import resident_bytes
from actors.signals import TERMINATIONS
from emulator.explore.compiled.graphs import TooLarge
from emulator.explore.compiled.runs import exhaust, walker_of
from emulator.explore.compiled.walker import BY
from emulator.explore.exhaustive import Exhausted, reductions
from emulator.explore.learned import LearnedMachine
from scenarios.files.unfinished import UnfinishedFile
from scenarios.runs.deadline import Deadline
from scenarios.runs.verdict import Settings
from scenarios.subjects.header import project_version
from scenarios.subjects.sources import digest_of_sources
from scenarios.subjects.subject import Subject
from scenarios.usage import HostProblem, UsageProblem

if TYPE_CHECKING:
    from emulator.explore.compiled.sharing_out import Crew, Progress

MAX_STATES: Final = 20_000_000
ALONE: Final = 100_000  # states; to start workers takes longer than to search these
KEPT_EVERY_S: Final = 600.0
TIME: Final = "time"
STATES: Final = "states"
MEMORY: Final = "memory"
INTERRUPTED: Final = "interrupted"
TERMINATED: Final = tuple([one.name for one in TERMINATIONS])
_OVER: Final = "to be kept"
_MARGIN: Final = 48 << 20  # bytes that may be taken between two looks
_LARGEST: Final = "memory, of which a process that searches has 4 GiB at most; --workers has more"

Look = Callable[[str], None]
"""Called every now and then with how far it is, in words."""


class Watch:
    """Whether a search has to end, and how far it is. `reason` says why it has ended."""

    def __init__(
        self, explorer: LearnedMachine, memory: int | None, over: Callable[[], str], look: Look
    ) -> None:
        self.reason = ""
        self._explorer = explorer
        self._memory = memory
        self._over = over
        self._look = look
        self._began = time.monotonic()
        if memory is not None and (walker := walker_of(explorer)) is not None:
            walker.limit_memory(walker.mib() + (max(0, self.spare(0) or 0) >> 20))

    def stop(self) -> bool:
        """For a search in this process."""
        walker = self._explorer.walker
        spare = self.spare(0)
        if spare is not None and walker is not None:
            walker.limit_memory(walker.mib() + (max(0, spare) >> 20))
        states = 0 if walker is None else walker.states
        self._tell(states, "", resident_bytes())
        self.reason = self.reason or self._over() or (MEMORY if spare is not None and spare <= 0 else "")
        return bool(self.reason)

    def why(self, progress: Progress) -> str:
        """For a search that is shared out."""
        frontier = f", {progress.frontier:,} ahead"
        self._tell(progress.states, frontier, resident_bytes() + progress.memory)
        spare = self.spare(progress.memory)
        return self._over() or (MEMORY if spare is not None and spare <= 0 else "")

    def spare(self, taken: int) -> int | None:
        """Bytes that are left, as other processes have taken so many; None if there is no limit."""
        return None if self._memory is None else self._memory - _MARGIN - resident_bytes() - taken

    def in_words(self, ended: str, taken: int = 0) -> str:
        """A reason, and if it is memory, whose."""
        spare = self.spare(taken)
        return _LARGEST if ended == MEMORY and (spare is None or spare > 1 << 32) else ended

    def _tell(self, states: int, frontier: str, memory: int) -> None:
        rate = states / (time.monotonic() - self._began + 1e-3)
        text = f"{states:,} states{frontier}, {rate:,.0f}/s, " if states else ""
        self._look(f"{text}{memory >> 20:,} MiB")


def prove(subject: Subject, explorer: LearnedMachine, settings: Settings, look: Look) -> Exhausted:
    """Search every interleaving of a subject. UsageProblem if the file to go on from is not this search's."""
    most = settings.states or MAX_STATES
    shared_out = settings.workers > 1 or settings.address is not None
    file = None
    if settings.resume is not None:
        file = UnfinishedFile(settings.resume, _identity(subject, explorer, settings))
    if (shared_out or file is not None) and walker_of(explorer) is None:
        raise UsageProblem(
            f"--{'workers' if file is None else 'resume'}: every interleaving is searched that way in "
            "compiled code, which needs the wasmtime package; install it, or leave the option out"
        )
    with Deadline(settings.seconds or float("inf"), *TERMINATIONS) as until:

        def over() -> str:
            return _signalled(until) or (TIME if until.over() else "")

        watch = Watch(explorer, settings.memory, over, look)
        if file is None and settings.address is None:
            found = alone(explorer, watch, min(ALONE, most) if shared_out else most)
            if not shared_out or found.stopped != STATES or most <= ALONE:
                return found
        try:
            # Once more, as Ray has handlers of its own for these signals.
            with _crew(explorer, settings) as crew, Deadline(float("inf"), *TERMINATIONS) as inner:

                def ended() -> str:
                    return _signalled(inner) or over()

                watch = Watch(explorer, settings.memory, ended, look)
                return _shared(explorer, crew, watch, most, file)
        except TooLarge:
            raise UsageProblem(
                f"{subject}: too large for compiled code, and so for --workers and --resume; leave them out"
            ) from None


def _signalled(until: Deadline) -> str:
    if until.signal in (0, signal.SIGINT):
        return INTERRUPTED if until.signal else ""
    return signal.Signals(until.signal).name


def alone(explorer: LearnedMachine, watch: Watch, most: int) -> Exhausted:
    """Search in this process, as far as the watch lets it."""
    found = exhaust(explorer, watch.stop, most)
    if not found.complete and found.violation is None:
        found.stopped = watch.in_words(watch.reason or (STATES if found.states > most else MEMORY))
    return found


@contextmanager
def _crew(explorer: LearnedMachine, settings: Settings) -> Iterator[Crew]:
    if settings.workers == 1 and settings.address is None:
        from emulator.explore.compiled.sharing_out import Here

        yield Here(1, explorer.cpus)
        return
    # Ray takes a second to import.
    from actors.share_workers import ShareWorkers

    option = "--workers" if settings.address is None else "--address"
    try:
        with ShareWorkers(settings.workers, explorer.cpus, settings.address) as workers:
            yield workers.crew
    except SessionError as problem:
        raise HostProblem(f"{option}: {problem}") from None


def _shared(
    explorer: LearnedMachine, crew: Crew, watch: Watch, most: int, file: UnfinishedFile | None
) -> Exhausted:
    """Share it out to a crew; if there is a file, go on from it and keep there what is not finished."""
    # There is no compiled search without it.
    from wasmtime import Trap, WasmtimeError

    from emulator.explore.compiled.sharing_out import Lost, SharedSearch
    from emulator.explore.compiled.teacher import Forgetful

    # What is there already, while it is taken up again, need not be kept.
    due = float("inf")

    def why(progress: Progress) -> str:
        keeps = file is not None and search.searching and time.monotonic() > due
        return watch.why(progress) or (_OVER if keeps else "")

    search = SharedSearch(explorer, shareable(explorer), crew, most, why, watch.spare)
    if file is not None and file.exists():
        unfinished, blocks = file.load()
        try:
            ended = search.come_back(unfinished, blocks)
        except Forgetful:
            raise UsageProblem(
                f"--resume {file.path}: the programs do not go as they went then; another file, or the "
                "programs and the version of migrc that it was made with"
            ) from None
        except (StopIteration, ValueError, OverflowError, struct.error, zlib.error, WasmtimeError, Trap):
            raise UsageProblem(
                f"--resume {file.path}: damaged; a file that migrc check --resume has written"
            ) from None
        if ended:
            return Exhausted(states=sum(one.states for one in unfinished.shares), stopped=ended)
    while True:
        due = time.monotonic() + KEPT_EVERY_S
        found = search.run()
        try:
            if file is not None and search.can_go_on:
                unfinished = search.unfinished()
                if search.can_go_on:
                    file.save(unfinished, search.blocks())
            elif file is not None and not found.stopped:
                file.remove()
        except Lost as problem:
            found.stopped, found.lost = str(problem), True
        if found.stopped != _OVER:
            found.stopped = watch.in_words(found.stopped, search.progress().memory)
            return found


def shareable(explorer: LearnedMachine) -> tuple[str, ...]:
    """The reductions that a search which is shared out has."""
    return tuple([name for name in reductions(True, explorer) if name in BY])


def _identity(subject: Subject, explorer: LearnedMachine, settings: Settings) -> dict[str, Any]:
    """What makes it this search and no other; plain values."""
    heed = subject.heed
    return {
        "test": str(subject.what),
        "policy": subject.policy,
        "arch": subject.arch,
        "mmu": subject.mmu,
        "cpus": explorer.cpus,
        "rules": [list(heed.rules), list(heed.ignored)],
        "reductions": list(shareable(explorer)),
        "workers": settings.workers,
        "project": project_version(),
        "programs": digest_of_sources(subject),
    }
