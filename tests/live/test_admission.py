"""Inboxes on a network take messages from inboxes of the same run only. Mailboxes by themselves, no Ray."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from actors.admission import Admission, version
from actors.mailbox import Directory, Mailbox
from tests.live.shell import HANG_S

Make = Callable[[], Mailbox]


@pytest.fixture
def make() -> Iterator[Make]:
    """Mailboxes, each in a context of its own as in a process of its own."""
    made: list[tuple[zmq.Context[zmq.Socket[bytes]], Mailbox]] = []

    def mailbox() -> Mailbox:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        made.append((context, Mailbox(context, None, "127.0.0.1")))
        return made[-1][1]

    yield mailbox
    for context, box in made:
        box.close()
        context.destroy(linger=0)


@pytest.fixture
def admitted(make: Make) -> Iterator[tuple[Mailbox, Mailbox, Admission]]:
    """An inbox, one that may write to it, and who decides that."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    admission = Admission(context)
    inbox, friend = Mailbox(context, None, "127.0.0.1"), make()
    admission.admit(Directory(inbox.endpoint, friend.endpoint, ()))
    yield inbox, friend, admission
    inbox.close()
    admission.stop()
    context.destroy(linger=0)


def received(inbox: Mailbox) -> bytes:
    assert inbox.inbox.poll(int(HANG_S * 1000))
    return inbox.inbox.recv()


def test_a_stranger_with_the_public_keys_is_refused(
    admitted: tuple[Mailbox, Mailbox, Admission], make: Make
) -> None:
    inbox, friend, admission = admitted
    make().connect(inbox.endpoint).send(b"forged")
    deadline = time.monotonic() + HANG_S
    while not admission.refused:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    friend.connect(inbox.endpoint).send(b"word")
    assert received(inbox) == b"word"
    assert not inbox.inbox.poll(0)


def test_garbage_plain_and_oversized_messages_do_no_harm(
    admitted: tuple[Mailbox, Mailbox, Admission],
) -> None:
    inbox, friend, _ = admitted
    host, port = inbox.endpoint.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"\xff" * 10 + b"GET / HTTP/1.1\r\n\r\n" * 100)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    plain = context.socket(zmq.PUSH)
    plain.connect(inbox.endpoint.address)
    plain.send(b"plain")
    friend.connect(inbox.endpoint).send(bytes(65 << 20))
    friend.connect(inbox.endpoint).send(b"word")
    assert received(inbox) == b"word"
    assert not inbox.inbox.poll(0)
    context.destroy(linger=0)


def test_what_actors_must_have_in_common_is_stable() -> None:
    assert version() == version()
    assert version().startswith("source ") and " on Python 3." in version()
