"""Ray on this machine for one session, closed to everybody else, and gone afterwards with all its files.

What the session puts on disk lies below a folder that only its owner can enter: Ray's own folder is open to
all users. Ray listens on the loopback interface only, and asks for a token that this process has made.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import psutil
import ray

from actors.errors import SessionError
from actors.ray_calls import answers, asked, depend_on, waiting

_MARK: Final = "MIGRC_SESSION_DIRECTORY"
_PREFIX: Final = "migrc-"
_LOCK: Final = "lock"
_RAYS: Final = "r"
_GONE_S: Final = 10.0
_TRIES: Final = 3
# Ray puts up to 70 bytes of its own behind this, and a Unix socket's path ends at 107.
_LONGEST_PARENT: Final = 18
# The smallest that Ray takes is 75 MiB; one pickled machine is all that goes through it.
_OBJECT_STORE_BYTES: Final = 80 * 2**20
# Ray reads it once in a process.
_TOKEN: Final = secrets.token_hex(32)

_locks: dict[str, int] = {}


def start_here(dashboard: bool) -> str:
    """Start Ray on this machine; the session's private directory. SessionError if it does not start.

    A busy machine can be too slow for Ray, which waits 30 s for itself: it is tried three times.
    """
    if ray.is_initialized():
        raise SessionError("Ray is already running in this process; end it first or give its address")
    parent = tempfile.gettempdir()
    parent = parent if len(parent) <= _LONGEST_PARENT else "/tmp"
    sweep(Path(parent))
    for left in reversed(range(_TRIES)):
        directory = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        try:
            _claim(directory)
            _start(directory, dashboard)
            _check_closed(directory)
            return directory
        except BaseException as problem:
            stop_here(directory)
            if isinstance(problem, SessionError) or not isinstance(problem, Exception):
                raise
            if not left:
                what = f"Ray does not start on this machine: {first_line(problem)}"
                raise SessionError(f"{what} (tried {_TRIES} times)") from problem
    raise AssertionError("the last try returns or raises")


def _start(directory: str, dashboard: bool) -> None:
    keep_quiet()
    environment = {
        _MARK: directory,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _TOKEN,
    }
    # Ray has a switch for what it does on other systems, a node that only this machine reaches, but it is
    # read when Ray is imported.
    alone = patch.object(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False)
    with _environment(environment), own_signals(), alone:
        ray._raylet.Config.initialize("")  # type: ignore[attr-defined]
        ray.init(
            # Not None: that would follow RAY_ADDRESS.
            address="local",
            include_dashboard=dashboard,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=f"{directory}/{_RAYS}",
        )
    depend_on(socket_of_raylet())


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables during the block; processes that it starts have them for good."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _claim(directory: str) -> None:
    """Hold the directory's lock until this process ends, so that everybody can tell whether it has."""
    lock = f"{directory}/{_LOCK}"
    file = _locks[directory] = os.open(f"{lock}.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(f"{lock}.new", lock)


def sweep(parent: Path) -> None:
    """Remove what sessions of this user have left whose process was killed."""
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):
            if lock.parent.lstat().st_uid != os.getuid() or lock.parent.is_symlink():
                continue
            with lock.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end_all(str(lock.parent), 0.0)
                shutil.rmtree(lock.parent, ignore_errors=True)


def _check_closed(directory: str) -> None:
    """SessionError if another user or another host could meddle."""
    status = os.lstat(directory)
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise SessionError(f"{directory} is open to other users; it must be its owner's alone")
    for process in (psutil.Process(), *session_processes(directory)):
        with contextlib.suppress(psutil.Error):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN and not _is_loopback(one.laddr.ip):
                    where = f"{one.laddr.ip} port {one.laddr.port}"
                    raise SessionError(
                        f"{process.name()} listens on {where}, which other hosts can reach; Ray 2.52 or newer"
                    )


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def session_processes(directory: str) -> list[psutil.Process]:
    """This session's processes, other than this one; zombies do not count.

    They have inherited its mark. Some of Ray's write their titles over the beginning of their environment,
    and whether the mark stands there is chance; those write logs in the session's folder.
    """
    mark = f"{_MARK}={directory}".encode()
    found = []
    for process in psutil.process_iter():
        # What has ended by now, and what is somebody else's, has nothing to show. Of an environment that
        # was written over, psutil reads no further than the title.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid():
                continue
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            if mark in environment.split(b"\0") or _writes_below(process, f"{directory}/{_RAYS}/"):
                found.append(process)
    return found


def _writes_below(process: psutil.Process, folder: str) -> bool:
    return any(one.path.startswith(folder) and one.mode != "r" for one in process.open_files())


def stop_here(directory: str) -> None:
    """End the Ray that `start_here` started; return when its last process and file are gone.

    A second Ctrl-C or SIGTERM meanwhile: at once.
    """
    try:
        if waiting():
            # Who was stopped, by somebody or by the system, can end in order.
            for process in session_processes(directory):
                with contextlib.suppress(psutil.Error):
                    process.resume()
        with contextlib.suppress(Exception):
            asked(ray.shutdown, limit_s=_GONE_S)
        if waiting():
            # Ray ends a process, with exit code 1, that waits for an answer of a raylet which ends. So it
            # stays until this one has told its results; its lock goes with it, and the next start removes it.
            return
        _end_all(directory, _GONE_S if answers() else 0.0)
    except BaseException:
        _end_all(directory, 0.0)
        _remove(directory)
        raise
    _remove(directory)


def _remove(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if directory in _locks:
        os.close(_locks.pop(directory))


def _end_all(directory: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while left := session_processes(directory):
        if time.monotonic() >= deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            deadline = time.monotonic() + _GONE_S
        psutil.wait_procs(left, timeout=0.05)


def own_signals() -> Any:
    """Keep Ray from handling SIGTERM in its own way: it would exit in the middle of starting."""
    return patch.object(ray._private.utils, "set_sigterm_handler", lambda handler: None)


def keep_quiet() -> None:
    """Keep what Ray has to say about its workers out of standard output, which may be somebody's JSON.

    `log_to_driver=False` does not cover messages of the raylet, such as the one that 8 workers are many for
    2 processors, and there is no switch that does; hence the reach into Ray.
    """
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_, **__: None


def socket_of_raylet() -> str:
    """Where the raylet of this machine listens that this process is connected to."""
    node: Any = ray._private.worker._global_node
    return str(node.raylet_socket_name)


def first_line(problem: BaseException) -> str:
    """What Ray's long errors begin with."""
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]


def cause(problem: BaseException) -> str:
    """Why an actor could not be made; of Ray's lines the one that says it."""
    lines = [line.strip() for line in str(problem).splitlines()]
    missing = [line for line in lines if line.startswith("ModuleNotFoundError")]
    return f"{missing[-1]}; migrc of this version has to be on every node" if missing else first_line(problem)
