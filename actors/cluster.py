"""Ray for one session: started on this machine in a private directory, or somebody's cluster.

Whatever is started here is gone afterwards, its directory included, whichever way the session ends. Signals
that arrive while Ray starts or stops wait until that is done: half a Ray is what nobody could clean up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Final, Self
from unittest.mock import patch

import ray

from actors.errors import SessionError
from actors.signals import signals_wait, unwind

_AUTH_MODE: Final = "RAY_AUTH_MODE"
_MARK: Final = "MIGRC_SESSION_DIRECTORY"
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 8.0
_GONE_S: Final = 10.0
# Ray puts up to 70 bytes of its own behind this, and a Unix socket's path ends at 107.
_LONGEST_PARENT: Final = 20
# The smallest that Ray takes is 75 MiB; one pickled machine is all that goes through it.
_OBJECT_STORE_BYTES: Final = 80 * 2**20


class RaySession:
    """Ray for as long as the `with` block lasts: on this machine, or the cluster at `address`.

    SessionError if there is no such cluster. In the block SIGTERM and SIGHUP raise SystemExit, so that it
    cleans up as Ctrl-C does.
    """

    def __init__(self, address: str | None = None, dashboard: bool = False) -> None:
        self._address = address
        self._dashboard = dashboard
        self.directory = ""  # where everything that this session puts on disk is; empty on a cluster
        self._joined = False
        self._signals = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._signals.enter_context(unwind())
        try:
            with signals_wait():
                if self._address:
                    join(self._address)
                    self._joined = True
                else:
                    self.directory = start_here(self._dashboard)
                self.begin()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *problem: object) -> None:
        self._close()

    def _close(self) -> None:
        try:
            with signals_wait():
                self.end()
                if self.directory:
                    stop_here(self.directory)
                    self.directory = ""
                if self._joined:
                    self._joined = False
                    leave()
        finally:
            self._signals.close()

    def begin(self) -> None:
        """Ray is there."""

    def end(self) -> None:
        """Ray is about to go; it may never have been there."""


def start_here(dashboard: bool) -> str:
    """Start Ray on this machine; its private directory. SessionError if it does not start."""
    if ray.is_initialized():
        raise SessionError("Ray is already running in this process; end it first or give its address")
    parent = tempfile.gettempdir()
    directory = tempfile.mkdtemp(prefix="migrc-", dir=parent if len(parent) <= _LONGEST_PARENT else "/tmp")
    environment = {
        _MARK: directory,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    keep_quiet()
    try:
        with _own_signals():
            ray.init(
                # Not None: that would follow RAY_ADDRESS.
                address="local",
                include_dashboard=dashboard,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=directory,
            )
    except BaseException as problem:
        stop_here(directory)
        if isinstance(problem, Exception):
            raise SessionError(f"Ray does not start on this machine: {first_line(problem)}") from problem
        raise
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return directory


def _own_signals() -> Any:
    """Keep Ray from handling SIGTERM in its own way: it would exit in the middle of starting."""
    return patch.object(ray._private.utils, "set_sigterm_handler", lambda handler: None)


def keep_quiet() -> None:
    """Keep what Ray has to say about its workers out of standard output, which may be somebody's JSON.

    `log_to_driver=False` does not cover messages of the raylet, such as the one that 8 workers are many for
    2 processors, and there is no switch that does; hence the reach into Ray.
    """
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_, **__: None


def stop_here(directory: str) -> None:
    """End the Ray that `start_here` started; return when its last process and file are gone."""
    with contextlib.suppress(Exception):
        ray.shutdown()
    deadline = time.monotonic() + _GONE_S
    while left := _processes(directory):
        if time.monotonic() > deadline:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            deadline = time.monotonic() + _GONE_S
        time.sleep(0.01)
    shutil.rmtree(directory, ignore_errors=True)


def _processes(directory: str) -> list[int]:
    """Processes that inherited this session's mark, other than this one; zombies do not count."""
    mark = f"{_MARK}={directory}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                found.append(int(name))
    return found


def join(address: str) -> None:
    """Connect to the cluster at `address` (`host:port`). SessionError if there is none, within 15 seconds."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        raise SessionError(f"cluster address {address!r}: it must be HOST:PORT, as in 10.0.0.1:6379")
    if ray.is_initialized():
        raise SessionError("Ray is already running in this process; end it first")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as problem:
        raise SessionError(f"no Ray cluster at {address}: {problem.strerror or problem}") from None
    # Whatever listens there may not be Ray, and Ray's own client would wait for a minute to find out.
    try:
        refused = _probe(address)
        if "AuthenticationError" in refused and _AUTH_MODE not in os.environ:
            # Ray uses the token that lies on this machine for clusters that it finds by itself, but not for
            # an address that it is given.
            os.environ[_AUTH_MODE] = "token"
            refused = _probe(address)
            # Older versions have no such mode and never come here.
            config = getattr(ray._raylet, "Config", None)
            if not refused and config is not None:
                config.initialize("")
        if "AuthenticationError" in refused:
            raise SessionError(
                f"the Ray cluster at {address} wants its token; "
                "put it into RAY_AUTH_TOKEN or ~/.ray/auth_token"
            )
        if refused:
            raise SessionError(f"no Ray cluster at {address}: it does not answer as Ray of this version does")
        keep_quiet()
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except subprocess.TimeoutExpired:
        raise SessionError(f"no Ray cluster at {address}: no answer within {_ANSWER_S:.0f} s") from None
    except SessionError:
        raise
    except Exception as problem:
        raise SessionError(f"cannot use the Ray cluster at {address}: {first_line(problem)}") from problem


def _probe(address: str) -> str:
    """Ask for a sign of life; what went wrong, empty if nothing did."""
    probe = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=_ANSWER_S,
        check=False,
    )
    return probe.stderr.decode(errors="replace") or "no answer" if probe.returncode else ""


def node_address() -> str:
    """IP address by which other nodes reach this one."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def leave() -> None:
    """Disconnect from the cluster."""
    with contextlib.suppress(Exception):
        ray.shutdown()


def first_line(problem: BaseException) -> str:
    """What Ray's long errors begin with."""
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]
