"""Ray itself is stopped, or dies, in the middle: the command ends, says so, and keeps what is through."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.live.shell import HANG_S, processes_marked, started

pytestmark = pytest.mark.live


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("who", "how", "told"),
    [
        ("raylet/raylet", "suspend", "Ray is lost: no answer within 4 s"),
        ("raylet/raylet", "kill", "Ray is lost: its raylet on this machine has died"),
        ("gcs/gcs_server", "kill", "Ray is lost: its gcs on this machine has died"),
    ],
)
def test_a_lost_raylet_ends_a_stress_with_what_is_through(
    temporary: Path, who: str, how: str, told: str
) -> None:
    mark = f"LIVE_TEST=raylet-{os.getpid()}"
    key, value = mark.split("=")
    arguments = ("shootdown", "--policy", "immediate", "--arch", "x86", "--runs", "1000000", "--json")
    environment = {"TMPDIR": str(temporary), "MIGRC_ANSWER_S": "4", key: value}
    with pytest.MonkeyPatch.context() as patched:
        for name, text in environment.items():
            patched.setenv(name, text)
        half = temporary / "half"
        with started("stress", *arguments, "--resume", str(half), folder=temporary) as run:
            deadline = time.monotonic() + HANG_S
            while not half.exists() or not json.loads(half.read_text())["tallies"][0]["runs"]:
                assert run.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            for number, command in processes_marked(mark).items():
                if any(who in word for word in command.split()[:1]):
                    with contextlib.suppress(psutil.Error):
                        getattr(psutil.Process(number), how)()
            output, errors = run.communicate(timeout=HANG_S)
    assert run.returncode == 3, errors
    # Ray's C++ has its own to say, when a raylet that was stopped goes on.
    said = [line for line in errors.splitlines() if "core_worker" not in line]
    assert len(said) == 1 and said[0].startswith(f"migrc: error: {told}")
    document = json.loads(output)
    assert document["runs"] > 0 and document["stopped"].startswith(told)
    assert processes_marked(mark) == {}
    assert [path.name for path in temporary.iterdir()] == ["half"]
