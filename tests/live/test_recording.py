"""Recordings of live runs: replayed in one process they come to the same end, whatever the policy."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from actors.mode import Mode
from actors.session import LiveResult, LiveSession
from scenarios.files.recording import End, Recording, Writer, tlb_digest
from scenarios.runs.replays import Replay, end_of
from scenarios.subjects.subject import Subject
from scenarios.workloads.workload_file import load_workload
from tests.live.shell import HANG_S, SMALL, migrc, settings, started

pytestmark = pytest.mark.live

ACCESSES = 15_000
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
    workload = load_workload("tiering", (*SMALL, f"threads.accesses={ACCESSES}"))
    subject = Subject(workload, policy, arch, 3, 5)
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


def follow(path: Path) -> Replay:
    with Recording(path) as recording:
        following = Replay(recording, recording.machine())
        following.run(lambda transitions, position: None)
    return following


@pytest.mark.parametrize("arch", ["x86", "sc"])
@pytest.mark.parametrize("policy", ["immediate", "migrc", "migrc:rfc2"])
def test_a_replay_comes_to_the_same_end(session: LiveSession, tmp_path: Path, policy: str, arch: str) -> None:
    result, end = record(session, tmp_path / "r.mrec", policy, arch)
    following = follow(tmp_path / "r.mrec")
    assert following.different is None
    assert following.recording.problem == ""
    here = end_of(following.referee)
    assert here.transitions == end.transitions > 1000
    assert (here.memory_digest, here.tlb_digest) == (end.memory_digest, end.tlb_digest)
    assert {one.rule for one in here.violations} == {one.rule for one in result.violations}
    assert result.accesses == 3 * ACCESSES
    assert sum(cpu["vmstat"].get("pgdemote_kswapd", 0) for cpu in result.cpus) > 0


def test_a_run_that_ended_early_is_usable_up_to_its_last_block(session: LiveSession, tmp_path: Path) -> None:
    record(session, tmp_path / "r.mrec", "migrc", "x86", tmp_path / "cut.mrec")
    whole = follow(tmp_path / "r.mrec")
    cut = follow(tmp_path / "cut.mrec")
    assert whole.blocks > 1
    assert (cut.different, cut.blocks) == (None, whole.blocks - 1)
    assert cut.recording.problem.startswith("cut at byte ")
    assert 0 < cut.referee.engine.steps < whole.referee.engine.steps


def test_the_recording_of_a_wrong_policy_is_kept_and_breaks_the_same_rule(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    small = settings(f"threads.accesses={ACCESSES}")
    done = migrc(
        "run", "tiering", "--cpus", "2", "--policy", "leaky:Leaky", "--json", *small, folder=tmp_path
    )
    assert done.returncode == 1, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["recording"] == "recordings/tiering--leaky_Leaky--x86--seed0.mrec"
    assert f"the recording is {run['recording']}" in done.stderr
    rules = {violation["rule"] for violation in run["violations"]}
    document = replayed(tmp_path, run["recording"])
    assert rules == {violation["rule"] for violation in document["violations"]}
    assert document["same"] is document["came_out_again"] is True
    done = migrc("shrink", run["recording"], "--trust", "--seconds", "2", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shrunk = json.loads(done.stdout)
    assert shrunk["after"] <= shrunk["before"] == run["transitions"]
    again = replayed(tmp_path, shrunk["file"])
    assert again["transitions"] == shrunk["after"]
    assert shrunk["rule"] in {violation["rule"] for violation in again["violations"]}


def replayed(folder: Path, file: str) -> dict[str, Any]:
    done = migrc("replay", file, "--trust", "--json", folder=folder)
    assert done.returncode == 1, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_ctrl_c_keeps_what_was_recorded(tmp_path: Path) -> None:
    arguments = ("--cpus", "2", "--policy", "immediate", *settings("threads.accesses=100000000"))
    file = tmp_path / "r.mrec"
    with started("run", "tiering", *arguments, "--record", "r.mrec", folder=tmp_path) as run:
        deadline = time.monotonic() + HANG_S
        while not (file.exists() and file.stat().st_size > 10_000):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=HANG_S)
    assert run.returncode == 130
    assert "r.mrec: recorded up to here" in errors
    done = migrc("replay", "r.mrec", "--json", folder=tmp_path)
    assert done.returncode == 2, done.stderr
    document = json.loads(done.stdout)
    assert (document["whole"], document["same"]) == (False, True)
    assert document["transitions"] > 1000
