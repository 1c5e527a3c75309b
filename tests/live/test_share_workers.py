"""Proofs that worker processes share: the states of one process, and no proof and no hang when one dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.session import LiveSession
from actors.share_workers import ShareCrew
from emulator.explore.compiled.sharing_out import Progress, SharedSearch
from emulator.explore.exhaustive import REDUCTIONS, exhaust
from emulator.explore.learned import LearnedMachine
from scenarios.runs.proofs import INTERRUPTED
from scenarios.subjects.programs import LitmusName, machine_of
from tests.live.shell import HANG_S, started

pytestmark = pytest.mark.live
pytest.importorskip("wasmtime")


def opened() -> LearnedMachine:
    return LearnedMachine(machine_of(LitmusName("shootdown"), "immediate", "riscv"))


@pytest.fixture
def crew(session: LiveSession) -> Iterator[ShareCrew]:
    crew = ShareCrew(2, opened().cpus)
    yield crew
    crew.close()


def test_workers_meet_the_states_of_one_process_also_when_gone_on_with(
    crew: ShareCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = exhaust(opened())
    monkeypatch.setattr("emulator.explore.compiled.sharing_out.BUDGET", 20)
    seen = []

    def stop(progress: Progress) -> str:
        seen.append(progress)
        return INTERRUPTED if progress.states > 300 else ""

    first = SharedSearch(opened(), REDUCTIONS, crew, 10_000, stop)
    found = first.run()
    assert (found.complete, found.stopped, first.can_go_on) == (False, INTERRUPTED, True)
    assert min(one.memory for one in seen if one.states) > 1 << 20
    kept, blocks = first.unfinished(), list(first.blocks())
    others = ShareCrew(2, opened().cpus)
    second = SharedSearch(opened(), REDUCTIONS, others, 10_000, lambda progress: "")
    second.come_back(kept, iter(blocks))
    whole = second.run()
    others.close()
    assert (whole.complete, whole.states, whole.schedules) == (True, alone.states, alone.schedules)


def test_a_worker_that_is_killed_leaves_no_proof_and_no_hang(
    crew: ShareCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emulator.explore.compiled.sharing_out.BUDGET", 20)
    victim = crew.process(1)

    def stop(progress: Progress) -> str:
        if progress.states > 300 and not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        return ""

    killed: list[int] = []
    search = SharedSearch(opened(), REDUCTIONS, crew, 10_000, stop)
    found = search.run()
    assert killed
    assert not found.complete and not search.can_go_on and found.lost
    assert found.stopped.startswith("worker 2 of 2 is gone: ")
    assert found.states > 300


ENDLESS = """
from emulator.machine.litmus import Expectation, Litmus
from emulator.hardware.operations import AtomicAdd


async def counts(cpu):
    while True:
        await AtomicAdd("x", 1)


NEVER = (Expectation("immediate", "Never", None, None),)
L = Litmus("counts", "Does it end?", (counts, counts), lambda setup: None, NEVER)
"""


def _workers_of(folder: Path) -> list[str]:
    """Processes in this working directory that are workers of a search."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/cwd") == str(folder):
                found.append(Path(f"/proc/{name}/cmdline").read_text())
        except OSError:
            continue
    return [one for one in found if "_ShareActor" in one]


def test_ctrl_c_ends_the_workers_and_keeps_what_was_seen(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ENDLESS)
    options = ("--strategy", "exhaustive", "--arch", "sc", "--workers", "2", "--resume", "half", "--json")
    with started("check", "mine.py", *options, folder=tmp_path) as process:
        deadline = time.monotonic() + HANG_S
        while len(_workers_of(tmp_path)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG_S)
    assert (process.returncode, err) == (130, "migrc: interrupted\n")
    document = json.loads(out)
    [result] = document["results"]
    assert document["interrupted"] and not result["complete"]
    assert (result["proof"]["stopped"], result["proof"]["kept"]) == (INTERRUPTED, "half")
    assert (tmp_path / "half").exists()
    assert not _workers_of(tmp_path)
