"""How a session begins and ends: other transports, clusters that are not there, interrupted drivers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.local_ray import session_processes, sweep
from actors.session import LiveSession, SessionError
from tests.live.shell import HANG_S, ROOT, processes_marked

pytestmark = pytest.mark.live

WHOLE_RUN = "tests.live.whole_run"
INTERRUPTED = "tests.live.interrupted"


@contextlib.contextmanager
def driver(
    program: str, name: str, temporary: Path, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A driver in a process group of its own, with its own folder for temporary files; the mark that its
    offspring carries."""
    mark = f"LIVE_TEST={name}-{os.getpid()}"
    key, value = mark.split("=")
    process = subprocess.Popen(
        [sys.executable, "-m", program, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, key: value, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    try:
        yield process, mark
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder that nobody else uses, with a name short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("SIGINT", "starting"),
        ("SIGTERM", "starting"),
        ("SIGINT", "running"),
        ("SIGTERM", "running"),
        ("SIGHUP", "running"),
        ("SIGKILL", "running"),
    ],
)
def test_an_interrupted_driver_leaves_nothing_behind(name: str, moment: str, temporary: Path) -> None:
    with driver(INTERRUPTED, f"{name}-{moment}", temporary) as (process, mark):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(moment):
                break
        if moment == "starting":
            # Somewhere in the middle of Ray's start: once it has made its directory.
            while not list(temporary.glob("migrc-*")):
                time.sleep(0.01)
        if name == "SIGINT":
            # As a terminal does it: the actors get it, too.
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(getattr(signal, name))
        process.communicate(timeout=HANG_S)
        assert process.returncode not in (0, None)
        if name == "SIGKILL":
            # Nobody could clean up: the next session does.
            (left,) = temporary.iterdir()
            sweep(temporary)
            assert not left.exists()
        assert processes_marked(mark) == {}
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("mode", "found"), [("a", True), ("r", False)])
def test_who_writes_a_log_of_the_session_belongs_to_it_without_the_mark(
    mode: str, found: bool, temporary: Path
) -> None:
    log = temporary / "r" / "agent.log"
    log.parent.mkdir()
    log.touch()
    program = f"file = open({str(log)!r}, {mode!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        assert [one.pid for one in session_processes(str(temporary))] == [process.pid] * found
        process.communicate(b"\n", timeout=HANG_S)


def test_a_session_in_use_is_not_swept_away_and_closed_to_others(session: LiveSession) -> None:
    directory = Path(session.directory)
    sweep(directory.parent)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    listening = [
        one.laddr.ip
        for process in session_processes(session.directory)
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]
    assert listening and {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_a_whole_run_over_tcp_with_curve_prints_nothing_of_its_own(temporary: Path) -> None:
    with driver(WHOLE_RUN, "whole", temporary, "tcp") as (process, mark):
        output, errors = process.communicate(timeout=HANG_S)
        assert (process.returncode, output.split(), errors) == (0, ["160", "24", "0"], "")
        assert processes_marked(mark) == {}
        assert list(temporary.iterdir()) == []


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("address", ["nonsense", "host:", "10.0.0.1:99999", "ray://10.0.0.1:10001"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(SessionError, match="it must be HOST:PORT") as caught, LiveSession(address):
        pass
    assert "\n" not in str(caught.value)


def refused_in_a_process(address: str, answer_s: str = "3") -> str:
    # In a process of its own, because this one has a Ray already.
    code = (
        "import sys; from actors.session import LiveSession, SessionError\n"
        "try:\n"
        f"    LiveSession({address!r}).__enter__()\n"
        "except SessionError as problem:\n"
        "    print(problem)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        cwd=ROOT,
        env={**os.environ, "MIGRC_ANSWER_S": answer_s},
    )
    assert found.stderr == ""
    return found.stdout


def test_an_address_where_nobody_listens_is_reported() -> None:
    assert refused_in_a_process(f"127.0.0.1:{closed_port()}").startswith("no Ray cluster at 127.0.0.1:")


def test_an_address_where_somebody_else_listens_is_reported() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        accepting = threading.Thread(target=swallow, args=(listener,), daemon=True)
        accepting.start()
        line = refused_in_a_process(f"127.0.0.1:{listener.getsockname()[1]}")
        limit = refused_in_a_process(f"127.0.0.1:{listener.getsockname()[1]}", "soon")
    assert line.startswith("no Ray cluster at 127.0.0.1:")
    assert line.endswith(": no answer within 3 s (MIGRC_ANSWER_S sets that limit)\n")
    assert limit == "MIGRC_ANSWER_S=soon: it must be a number of seconds\n"


def swallow(listener: socket.socket) -> None:
    kept = []
    with contextlib.suppress(OSError):
        while True:
            kept.append(listener.accept())
