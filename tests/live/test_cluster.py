"""`--address`: the same run on a Ray cluster that somebody else started, over tcp with CURVE keys."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.address import Placement
from actors.placement import places
from tests.live.shell import HANG_S, migrc, processes_marked

pytestmark = pytest.mark.live

MARK = "MIGRC_TEST_CLUSTER"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="mc", dir="/tmp", ignore_cleanup_errors=True) as directory:
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2",
            f"--port={port}", f"--temp-dir={directory}", "--include-dashboard=false",
            "--node-ip-address=127.0.0.1", "--disable-usage-stats",
        ]  # fmt: skip
        log = Path(directory, "start.log")
        with log.open("w") as output:
            starter = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, MARK: directory},
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + HANG_S
            while "Ray runtime started" not in log.read_text():
                assert starter.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            while left := processes_marked(f"{MARK}={directory}"):
                for process in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                starter.wait(HANG_S)
                time.sleep(0.05)


def test_a_run_on_a_cluster_finds_what_a_run_here_finds(address: str, tmp_path: Path) -> None:
    arguments = ("--address", address, "--cpus", "2", "--policy", "migrc", "--set", "threads.accesses=5000")
    done = migrc("run", "tiering", *arguments, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["accesses"] == 10_000
    assert run["violations"] == []
    assert len(run["network_ns"]) == 1
    assert json.loads(done.stdout)["placement"] == "spread"
    assert any("of another network" in line for line in json.loads(done.stdout)["conclusion"])


def test_a_sweep_on_a_cluster_finds_what_a_sweep_here_finds(address: str, tmp_path: Path) -> None:
    few = ("--policy", "migrc", "--set", "threads.accesses=500")
    arguments = ("tiering", "--vary", "seed=1,2", *few, "--json")
    there = migrc("sweep", *arguments, "--address", address, "--workers", "2", folder=tmp_path)
    assert there.returncode == 0, there.stderr
    here = migrc("sweep", *arguments, folder=tmp_path)
    both = [json.loads(done.stdout)["points"] for done in (there, here)]
    times = [[point["run"]["elapsed_ns"] for point in points] for points in both]
    assert times[0] == times[1] and len(times[0]) == 2


@pytest.mark.parametrize(("how", "expected"), [("spread", "abcab"), ("sockets", "aaabb"), ("pack", "aaaaa")])
def test_where_cpus_are(how: Placement, expected: str) -> None:
    nodes = "abc"[: 2 if how == "sockets" else 3]
    assert "".join(places(nodes, 5, how)) == "a" + expected


def test_stress_on_a_cluster_finds_a_race_and_leaves_its_recording(address: str, tmp_path: Path) -> None:
    policies = ("--policy", "immediate", "--policy", "mistake:no-wait-for-acknowledgements")
    options = ("--address", address, "--json", "--runs", "2", "--arch", "x86")
    done = migrc("stress", "shootdown", *options, *policies, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    right, wrong = json.loads(done.stdout)["results"]
    assert (right["runs"], right["races"], right["violations"]) == (1, 0, 0)
    assert (wrong["runs"], wrong["races"]) == (1, 1)
    assert list(tmp_path.glob("recordings/*.mrec"))
