"""Ray's calls with an end: where its raylet is stopped Ray waits for ever, and hears no signal meanwhile.

A thread of its own asks Ray. Who waits for the answer can stop: after a limit, or for a signal at once.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import psutil

from actors.errors import SessionError
from actors.leaving import give_up

Answer = TypeVar("Answer")
_Question = tuple[Callable[[], Any], Future[Any]]

_ANSWER_S: Final = 60.0
PATIENCE: Final = "MIGRC_ANSWER_S"
"""The variable that says how many seconds Ray may take to answer, 60 without it."""


class LostRay(SessionError):
    """Ray has not answered within its limit, or is no more. Says nothing of what was run."""


class _Asker:
    """The thread that asks. One that Ray keeps is given up, and the next question gets a new one."""

    def __init__(self) -> None:
        self._questions: SimpleQueue[_Question] | None = None
        self._unanswered: list[Future[Any]] = []

    @property
    def stuck(self) -> bool:
        """Somebody has waited in vain, and Ray still has the question."""
        return any(not answer.done() for answer in self._unanswered)

    def ask(self, question: Callable[[], Answer], limit_s: float) -> Answer:
        answer: Future[Answer] = Future()
        if self._questions is None:
            self._questions = SimpleQueue()
            threading.Thread(target=self._work, args=(self._questions,), name="ray", daemon=True).start()
        self._questions.put((question, answer))
        try:
            return answer.result(limit_s)
        finally:
            if not answer.done():
                self._unanswered.append(answer)
                self._questions = None

    @staticmethod
    def _work(questions: SimpleQueue[_Question]) -> None:
        while True:
            question, answer = questions.get()
            try:
                answer.set_result(question())
            except BaseException as problem:
                answer.set_exception(problem)


_asker: Final = _Asker()
_parts: Final[list[tuple[str, psutil.Process]]] = []


def depend_on(socket: str) -> None:
    """The raylet that listens there, and this process's own gcs: Ray ends a process, with exit code 1, that
    asks one which is no more.
    """
    _parts.clear()
    for process in psutil.process_iter(("name", "ppid")):
        name, parent = process.info["name"], process.info["ppid"]
        if name == "raylet" and socket in _listens(process):
            _parts.append(("raylet", process))
        elif name == "gcs_server" and parent == os.getpid():
            _parts.append(("gcs", process))


def _listens(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return [str(one.laddr) for one in process.net_connections("unix")]
    return []


def _dead() -> str:
    """The part of Ray that has died; empty if none has."""
    for name, process in _parts:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return name
        except psutil.Error:
            return name
    return ""


def asked(
    call: Callable[..., Answer], *arguments: Any, limit_s: float | None = None, **options: Any
) -> Answer:
    """What `call` answers, a function of Ray. LostRay after `limit_s` seconds (`answer_s` unless given)."""
    limit = answer_s() if limit_s is None else limit_s
    if dead := _dead():
        give_up("ray")
        raise LostRay(f"Ray is lost: its {dead} on this machine has died")
    over = threading.Event()

    def question() -> Answer:
        try:
            return call(*arguments, **options)
        finally:
            over.set()

    try:
        return _asker.ask(question, limit)
    except TimeoutError:
        if over.is_set():
            raise
        give_up("ray")
        raise LostRay(
            f"Ray is lost: no answer within {limit:g} s ({PATIENCE} sets that limit); "
            "its processes are stopped, or the way to them is cut"
        ) from None


def answers() -> bool:
    """Ray has answered all that it was asked, and can be asked more."""
    return not _asker.stuck and not _dead()


def waiting() -> bool:
    """Some question has no answer yet, though nobody waits for it any more."""
    return _asker.stuck


def answer_s() -> float:
    """How long Ray may take to answer, in seconds. SessionError if the variable that says so is no time."""
    text = os.environ.get(PATIENCE, str(_ANSWER_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise SessionError(f"{PATIENCE}={text}: it must be a number of seconds")
    return seconds
