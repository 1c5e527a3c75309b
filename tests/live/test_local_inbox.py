"""Inboxes on one machine keep order, lose nothing, take long messages, and let no two wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from actors.local_inbox import LocalInbox, LocalPeer

# More than the queue of any system holds.
MANY = 3_000


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


def numbers(inbox: LocalInbox) -> list[int]:
    return [int(bytes(inbox.recv())) for _ in range(MANY)]


def test_two_that_send_before_they_read_get_everything_in_order(folder: Path) -> None:
    inboxes = [LocalInbox(str(folder / name)) for name in "ab"]
    found: dict[int, list[int]] = {}

    def one(me: int) -> None:
        peer = LocalPeer(inboxes[1 - me].path, inboxes[me])
        for number in range(MANY):
            peer.send(b"%d" % number)
        found[me] = numbers(inboxes[me])

    threads = [threading.Thread(target=one, args=(me,)) for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: list(range(MANY)), 1: list(range(MANY))}


def test_a_long_message_arrives_in_its_place_and_leaves_nothing(folder: Path) -> None:
    inbox = LocalInbox(str(folder / "a"))
    peer = LocalPeer(inbox.path, None)
    sent = [b"before", bytes(5_000_000), b"x" * (1 << 16), b"behind"]
    for message in sent:
        peer.send(message)
    assert [bytes(inbox.recv()) for _ in sent] == sent
    assert not inbox.poll(0)
    inbox.close()
    assert list(folder.iterdir()) == []


def test_who_is_gone_gets_nothing_and_who_hangs_is_given_up(folder: Path) -> None:
    LocalPeer(str(folder / "never"), None).send(b"word")
    inbox = LocalInbox(str(folder / "a"))
    hasty = LocalPeer(inbox.path, None, patience_ms=0)
    for _ in range(MANY):
        hasty.send(b"word")
    kept = 0
    while inbox.poll(0):
        inbox.recv()
        kept += 1
    assert 0 < kept < MANY
    inbox.close()
    hasty.send(b"word")
