"""Ray for one session: started on this machine in a private directory, or somebody's cluster.

Whatever is started here is gone afterwards, its directory included, whichever way the session ends. Signals
that arrive while Ray starts or stops wait until that is done: half a Ray is what nobody could clean up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from typing import Final, Self

import ray

from actors.address import split_address
from actors.errors import SessionError
from actors.local_ray import first_line, keep_quiet, own_signals, socket_of_raylet, start_here, stop_here
from actors.ray_calls import PATIENCE, answer_s, asked, depend_on
from actors.signals import signals_wait, unwind

_AUTH_MODE: Final = "RAY_AUTH_MODE"
_CONNECT_S: Final = 5.0


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


def join(address: str) -> None:
    """Connect to the cluster at `address` (`host:port`). SessionError if there is none, within 15 seconds."""
    try:
        place = split_address(address)
    except ValueError as problem:
        raise SessionError(str(problem)) from None
    if ray.is_initialized():
        raise SessionError("Ray is already running in this process; end it first")
    try:
        socket.create_connection(place, timeout=_CONNECT_S).close()
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
        with own_signals():
            asked(ray.init, address=address, log_to_driver=False, logging_level=logging.ERROR)
        depend_on(socket_of_raylet())
    except subprocess.TimeoutExpired:
        raise SessionError(
            f"no Ray cluster at {address}: no answer within {answer_s():g} s ({PATIENCE} sets that limit)"
        ) from None
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
        timeout=answer_s(),
        check=False,
    )
    return probe.stderr.decode(errors="replace") or "no answer" if probe.returncode else ""


def node_address() -> str:
    """IP address by which other nodes reach this one."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def leave() -> None:
    """Disconnect from the cluster."""
    with contextlib.suppress(Exception):
        asked(ray.shutdown)
