"""A search spread over worker processes finds what one process finds, and ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.live.shell import HANG_S, migrc, started

pytestmark = pytest.mark.live

LITMUS = """
from emulator.machine.litmus import Expectation, Forbidden, Litmus
from emulator.hardware.operations import Load, Store


def buffer(mine, other, flag, others_flag):
    async def program(cpu):
        for word in range(6):
            await Store(f"{mine}{word}", 1)
        await Store(mine, 1)
        if not await Load(other):
            cpu.count("litmus_overtook")
            await Store(flag, 1)
            if await Load(others_flag):
                raise Forbidden("store buffering", "both CPUs read 0")

    return program


SB = Litmus(
    "SB",
    "Does a load overtake a store?",
    (buffer("x", "y", "left", "right"), buffer("y", "x", "right", "left")),
    lambda setup: None,
    (Expectation("immediate", "Never", "Sometimes", "Sometimes", ("litmus_overtook",)),),
)
"""


def results(folder: Path, workers: int) -> list[dict[str, Any]]:
    options = ("--json", "--seed", "3", "--schedules", "5000", "--workers", str(workers))
    done = migrc("check", "mine.py", *options, folder=folder)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    for result in found:
        del result["elapsed_s"]
    return found


def test_two_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    # Without most of the stores: the shortest witness is looked for on top, and takes longer than the search.
    (tmp_path / "mine.py").write_text(LITMUS.replace("range(6)", "range(2)"))
    alone = results(tmp_path, 1)
    assert results(tmp_path, 2) == alone
    assert [result["observation"] for result in alone] == ["Never", "Sometimes", "Sometimes"]


def test_what_a_worker_raises_is_one_line(tmp_path: Path) -> None:
    text = LITMUS.replace('raise Forbidden("store buffering", "both CPUs read 0")', "cpu.no_such_thing")
    (tmp_path / "mine.py").write_text(text)
    done = migrc("check", "mine.py", "--arch", "x86", "--workers", "2", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("migrc: error: ")
    assert "no_such_thing' (mine.py:" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_ends_the_workers_and_prints_what_is_finished(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LITMUS)
    options = ("--json", "--workers", "2", "--schedules", "1000000000", "--strategy", "random")
    archs = ("--arch", "x86", "--arch", "riscv", "--arch", "sc")
    arguments = ("mine.py", "--policy", "immediate", *archs, *options)
    with started("check", *arguments, folder=tmp_path) as process:
        deadline = time.monotonic() + HANG_S
        # The first result is finished once the second one's witness lies there. The third ends when told to.
        while len(list(tmp_path.glob("witnesses/*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["interrupted"] is True
    finished = [result["arch"] for result in document["results"]]
    assert finished[:1] == ["x86"] and "sc" not in finished
    assert err == "migrc: interrupted\n"
    assert not [name for name in os.listdir("/proc") if name.isdigit() and _works_in(name, str(tmp_path))]


def _works_in(process: str, folder: str) -> bool:
    """A process whose working directory is the test's: a worker that was left behind."""
    try:
        return os.readlink(f"/proc/{process}/cwd") == folder
    except OSError:
        return False


def test_a_sweep_on_workers_finds_the_same(tmp_path: Path) -> None:
    command = ["sweep", "tiering", "--json", "--policy", "immediate"]
    for option in ("--vary cpus=2,3", "--vary sockets=1,2", "--set threads.accesses=2000"):
        command += option.split()
    documents = []
    for workers in ("1", "2"):
        done = migrc(*command, "--workers", workers, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        documents.append(json.loads(done.stdout))
        for point in documents[-1]["points"]:
            del point["run"]["wall_s"]
    assert len(documents[0]["points"]) == 4
    assert documents[0] == documents[1]
