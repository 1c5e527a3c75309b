"""Recordings of live runs: replayed in one process they come to the same end, whatever the policy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from actors.mode import Mode
from actors.session import LiveResult, LiveSession
from scenarios.files.recording import End, Recording, Writer, tlb_digest
from scenarios.runs.replays import Following
from scenarios.subjects.subject import Subject
from scenarios.workloads.workload_file import load_workload

pytestmark = pytest.mark.live

HANG_S = 300

# Small tiers and a hot set that moves fast, so that a short run demotes and promotes.
SMALL = (
    "memory.fast_pages=128",
    "memory.slow_pages=512",
    "memory.min_free_pages=24",
    "threads.table_pages=192",
    "threads.heap_pages=32",
    "threads.hot_pages=24",
    "threads.drift_every=1000",
    "threads.drift_pages=16",
    "threads.accesses=15000",
    "kernel.numa_scan_pages=256",
    "kernel.numa_scan_period_accesses=500",
    "checks.sample_every=50",
)
RECORDED = Mode(watched=True, recorded=True)

LEAKY = """
from emulator.hardware.operations import FolioGet
from emulator.kernel.policy import Policy


class Leaky(Policy):
    async def folio_moved(self, cpu, src, dst):
        await FolioGet(dst)
"""


def record(
    session: LiveSession, path: Path, policy: str, arch: str, copy: Path | None = None
) -> tuple[LiveResult, End]:
    """Run `tiering` on three CPUs; `copy` gets the file as it was in the middle of the run."""
    subject = Subject(load_workload("tiering", SMALL), policy, arch, 3, 5)
    with Writer(path, subject.header()) as writer:

        def keep(events: tuple[int, ...], checksum: int) -> None:
            writer.keep(events, checksum)
            if copy is not None:
                copy.write_bytes(path.read_bytes()[:-1])

        result = session.run(subject.machine(), mode=RECORDED, keep=keep)
        end = End(
            transitions=result.memory["transitions"],
            memory_digest=result.memory["memory_digest"],
            tlb_digest=tlb_digest(result.tlbs),
            violations=tuple(result.violations),
        )
        writer.end(end)
    return result, end


def follow(path: Path) -> Following:
    with Recording(path) as recording:
        following = Following(recording, recording.machine())
        following.run(lambda transitions, position: None)
    return following


@pytest.mark.parametrize("arch", ["x86", "sc"])
@pytest.mark.parametrize("policy", ["immediate", "migrc", "migrc:rfc2"])
def test_a_replay_comes_to_the_same_end(session: LiveSession, tmp_path: Path, policy: str, arch: str) -> None:
    result, end = record(session, tmp_path / "r.mrec", policy, arch)
    following = follow(tmp_path / "r.mrec")
    assert following.different == ""
    assert following.recording.problem == ""
    here = following.stepper.end()
    assert here.transitions == end.transitions > 1000
    assert (here.memory_digest, here.tlb_digest) == (end.memory_digest, end.tlb_digest)
    assert {one.rule for one in here.violations} == {one.rule for one in result.violations}
    assert result.accesses == 3 * 15_000
    assert sum(cpu["vmstat"].get("pgdemote_kswapd", 0) for cpu in result.cpus) > 0


def test_a_run_that_ended_early_is_usable_up_to_its_last_block(session: LiveSession, tmp_path: Path) -> None:
    record(session, tmp_path / "r.mrec", "migrc", "x86", tmp_path / "cut.mrec")
    whole = follow(tmp_path / "r.mrec")
    cut = follow(tmp_path / "cut.mrec")
    assert whole.blocks > 1
    assert (cut.different, cut.blocks) == ("", whole.blocks - 1)
    assert cut.recording.problem.startswith("cut at byte ")
    assert 0 < cut.stepper.engine.steps < whole.stepper.engine.steps


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "scenarios", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def migrc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
        env=environment(),
    )


def small() -> list[str]:
    return [word for setting in SMALL for word in ("--set", setting)]


def test_the_recording_of_a_wrong_policy_is_kept_and_breaks_the_same_rule(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    done = migrc(tmp_path, "run", "tiering", "--cpus", "2", "--policy", "leaky:Leaky", "--json", *small())
    assert done.returncode == 1, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["recording"] == "recordings/tiering--leaky_Leaky--x86--seed0.mrec"
    assert f"the recording is {run['recording']}" in done.stderr
    rules = {violation["rule"] for violation in run["violations"]}
    document = replayed(tmp_path, run["recording"])
    assert rules == {violation["rule"] for violation in document["violations"]}
    assert document["same"] is document["came_out_again"] is True
    done = migrc(tmp_path, "shrink", run["recording"], "--seconds", "2", "--json")
    assert done.returncode == 0, done.stderr
    shrunk = json.loads(done.stdout)
    assert shrunk["after"] <= shrunk["before"] == run["transitions"]
    again = replayed(tmp_path, shrunk["file"])
    assert again["transitions"] == shrunk["after"]
    assert shrunk["rule"] in {violation["rule"] for violation in again["violations"]}


def replayed(folder: Path, file: str) -> dict[str, Any]:
    done = migrc(folder, "replay", file, "--json")
    assert done.returncode == 1, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_ctrl_c_keeps_what_was_recorded(tmp_path: Path) -> None:
    arguments = ["tiering", "--cpus", "2", "--policy", "immediate", "--record", "r.mrec", *small()]
    run = subprocess.Popen(
        command("run", *arguments, "--set", "threads.accesses=100000000"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    file = tmp_path / "r.mrec"
    deadline = time.monotonic() + HANG_S
    while not (file.exists() and file.stat().st_size > 20_000):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=HANG_S)
    assert run.returncode == 130
    assert "r.mrec: recorded up to here" in errors
    done = migrc(tmp_path, "replay", "r.mrec", "--json")
    assert done.returncode == 2, done.stderr
    document = json.loads(done.stdout)
    assert (document["whole"], document["same"]) == (False, True)
    assert document["transitions"] > 1000
