"""Inboxes on one machine: Unix datagram sockets, which keep messages apart and in order and lose none.

A message is two system calls and no other thread. The queue of such a socket is short, ten messages on many
systems, so whoever finds one full takes in what has come for itself while it waits: no two actors can wait
for room at each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import uuid
from collections import deque
from pathlib import Path
from typing import Final

# What is longer goes through a file next to the inbox: the size of a datagram is bounded by the system.
_LONGEST: Final = 1 << 16
# Begins no MessagePack: the rest is the name of that file.
_IN_A_FILE: Final = 0xC1
_GONE: Final = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT, errno.EPIPE)
_UNCONNECTED: Final = (errno.ENOTCONN, errno.EDESTADDRREQ)


class LocalInbox:
    """The inbox at `path`. What `recv` returns is valid until the next call."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._buffer = bytearray(_LONGEST)
        self._early: deque[bytes] = deque()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def recv(self) -> bytes | memoryview:
        """The next message; waits for it."""
        if self._early:
            return self._early.popleft()
        frame = memoryview(self._buffer)[: self._socket.recv_into(self._buffer)]
        if frame[0] != _IN_A_FILE:
            return frame
        file = Path(os.fsdecode(bytes(frame[1:])))
        whole = file.read_bytes()
        file.unlink()
        return whole

    def poll(self, timeout_ms: int | None = None) -> bool:
        """A message is there, by now or within the time; None: whenever."""
        return bool(self._early) or bool(self._poll.poll(timeout_ms))

    def fileno(self) -> int:
        """The socket's number."""
        return self._socket.fileno()

    def take_in(self) -> None:
        """Take a message out of the socket's queue, for the next `recv`."""
        early, self._early = self._early, deque()
        early.append(bytes(self.recv()))
        self._early = early

    def close(self) -> None:
        """Close it; its file goes."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class LocalPeer:
    """A connection to the inbox at `path`, which has to exist at the first `send`, for one thread.

    `inbox`: that thread's own, if it has one. `patience_ms`: how long to wait for room, None for as long as
    it takes; after that, and if nobody is there any more, the message is lost.
    """

    def __init__(self, path: str, inbox: LocalInbox | None, patience_ms: int | None = None) -> None:
        self._path = path
        self._inbox = inbox
        self._patience_ms = patience_ms
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, frame: bytes) -> None:
        """Send a message."""
        try:
            if len(frame) > _LONGEST:
                frame = self._in_a_file(frame)
            self._socket.send(frame)
        except OSError as problem:
            if problem.errno in _UNCONNECTED:
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    self._socket.connect(self._path)
                    self.send(frame)
            elif isinstance(problem, BlockingIOError):
                self._wait_and_send(frame)
            elif problem.errno not in _GONE:
                raise

    def _in_a_file(self, frame: bytes) -> bytes:
        file = Path(f"{self._path}.{uuid.uuid4().hex}")
        file.write_bytes(frame)
        return bytes((_IN_A_FILE,)) + os.fsencode(file)

    def _wait_and_send(self, frame: bytes) -> None:
        waiting = select.poll()
        waiting.register(self._socket, select.POLLOUT)
        if self._inbox is not None:
            waiting.register(self._inbox, select.POLLIN)
        while ready := waiting.poll(self._patience_ms):
            for number, _ in ready:
                if self._inbox is not None and number == self._inbox.fileno():
                    self._inbox.take_in()
                    continue
                try:
                    self._socket.send(frame)
                except BlockingIOError:
                    continue
                except OSError as problem:
                    if problem.errno not in _GONE:
                        raise
                return

    def close(self) -> None:
        """Close it; what has been sent arrives."""
        self._socket.close()
