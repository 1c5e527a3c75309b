"""`migrc run` from end to end: real actors, the document, exit codes, and a user's own policies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.shell import HANG_S, migrc, settings, started

pytestmark = pytest.mark.live

ACCESSES = "threads.accesses=15000"


def runs_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    document = json.loads(done.stdout)
    head = ["scenario", "engine", "kernel", "arch", "mmu", "cpus", "seed", "runs"]
    assert list(document) == [*head, "project", "host", "settings", "trace", "cores", "conclusion"]
    runs: list[dict[str, Any]] = document["runs"]
    return runs


def test_both_policies_make_the_same_accesses_and_migrc_defers(tmp_path: Path) -> None:
    done = migrc(
        "run", "tiering", "--cpus", "3", "--seed", "5", "--json", *settings(ACCESSES), folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    immediate, deferred = runs_of(done)
    assert immediate["accesses"] == deferred["accesses"] == 3 * 15_000
    assert immediate["violations"] == deferred["violations"] == []
    for run in (immediate, deferred):
        received = run["vmstat"]["nr_tlb_remote_flush_received"]
        assert sum(run["interrupts"]["TLB"]) == received > 0
        assert len(run["interrupts"]["TLB"]) == 3
        assert run["vmstat"]["pgdemote_kswapd"] > 0
        assert run["ipi_latency_ns"]["delivery"]["count"] == received
        assert run["ipi_latency_ns"]["round_trip"]["count"] <= received
        assert set(run["core_wait_share"]) == {*run["ipi_latency_ns"], "memory"}
        assert all(0 <= share <= 1 for share in run["core_wait_share"].values())
        assert 0 < run["vmstat"]["tlb_refills_full"] <= run["vmstat"]["tlb_entries_flushed_full"]
    assert immediate["pending_peak"] == 0
    assert deferred["pending_peak"] > 0
    assert deferred["vmstat"]["migrc_deferred"] > 0


def test_a_recorded_program_is_replayed(tmp_path: Path) -> None:
    arguments = ("--cpus", "2", "--policy", "migrc", "--set", "replay.accesses_per_thread=20000")
    done = migrc("run", "replay", *arguments, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = runs_of(done)
    assert run["accesses"] == 2 * 20_000
    assert run["violations"] == []


def test_huge_pages_are_mapped_and_nothing_breaks(tmp_path: Path) -> None:
    """Whether and how many of them move is up to chance in a live run; that they do, timed runs show."""
    huge = settings(ACCESSES, "kernel.hpage_order=2", "threads.heap_pages=64", "threads.heap_share=0.5")
    done = migrc("run", "tiering", "--cpus", "2", "--policy", "migrc:rfc2", "--json", *huge, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = runs_of(done)
    assert run["violations"] == []
    assert run["vmstat"]["thp_fault_alloc"]


def test_a_violation_is_printed_and_the_exit_code_is_1(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(
        "from emulator.hardware.operations import FolioGet\n"
        "from emulator.kernel.policy import Policy\n\n\n"
        "class Leaky(Policy):\n"
        "    async def folio_moved(self, cpu, src, dst):\n"
        "        await FolioGet(dst)\n"
    )
    done = migrc(
        "run", "tiering", "--cpus", "2", "--policy", "leaky:Leaky", *settings(ACCESSES), folder=tmp_path
    )
    assert done.returncode == 1, done.stderr
    assert "reference count" in done.stdout


def test_a_policy_that_raises_in_the_middle_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from emulator.kernel.policy import Policy\n\n\n"
        "class Broken(Policy):\n"
        "    async def unmap_done(self, cpu):\n"
        "        raise KeyError('nobody home')\n"
    )
    arguments = ("--cpus", "2", "--policy", "broken:Broken", "--json", *settings(ACCESSES))
    done = migrc("run", "tiering", *arguments, folder=tmp_path)
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["runs"] == [] and "nobody home" in document["stopped"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("migrc: error: ")
    assert "broken.py:6" in line
    assert "nobody home" in line


def test_actors_get_a_mistake_that_is_listed(tmp_path: Path) -> None:
    arguments = ("--cpus", "2", "--policy", "mistake:zap-without-flush", "--json", *settings(ACCESSES))
    done = migrc("run", "tiering", *arguments, folder=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    (run,) = runs_of(done)
    assert run["policy"] == "mistake:zap-without-flush"


FORGETFUL = """
from beside import note
from emulator.kernel.policy import Policy


class Forgetful(Policy):
    async def unmap_done(self, cpu):
        self.last = {"note": note}["note"](cpu)
        self.last = None
"""


def test_actors_get_a_policy_with_what_lies_beside_it_and_tell_of_a_dropped_coroutine(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "forgetful.py").write_text(FORGETFUL)
    (tmp_path / "own" / "beside.py").write_text("async def note(cpu):\n    pass\n")
    arguments = ("--cpus", "2", "--policy", "own/forgetful.py:Forgetful", *settings(ACCESSES))
    done = migrc("run", "tiering", *arguments, folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "ForgottenAwait: note() is called and never awaited" in line
    assert "own/forgetful.py:9 in unmap_done)" in line


def test_what_was_through_when_ctrl_c_came_is_printed(tmp_path: Path) -> None:
    arguments = ("run", "tiering", "--cpus", "2", "--json", *settings("threads.accesses=30000"))
    with started(*arguments, folder=tmp_path, start_new_session=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("migrc: immediate: ")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=HANG_S)
    assert (process.returncode, err) == (130, "migrc: interrupted\n")
    document = json.loads(out)
    assert document["interrupted"] is True
    assert [run["policy"] for run in document["runs"]] == ["immediate"]
