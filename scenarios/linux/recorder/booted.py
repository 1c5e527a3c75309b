"""Boots a kernel under QEMU, lets the guest run cases several times, and keeps what most runs agree on."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from scenarios.linux.cases import Recording
from scenarios.linux.recorder.initial_files import Kernel, initial_file_system, kernel_package, unpacked
from scenarios.linux.recorder.traced import BrokenTrace, Traced, majority, read_trace
from scenarios.usage import UsageProblem

QEMU: Final = "qemu-system-x86_64"
_AGAIN: Final = 2
_NODES: Final = ("896M", "384M")
APPEND: Final = (
    # no_timer_check: a starved guest panics otherwise. Four levels of page tables, as most machines have.
    "console=ttyS0 quiet panic=-1 no_timer_check no5lvl mitigations=off nowatchdog nokaslr "
    "cgroup_disable=pressure workqueue.power_efficient=0"
)


def record(
    version: str,
    cases: Sequence[tuple[str, str]],
    runs: int,
    packages: Path | None,
    look: Callable[[int], None] = lambda done: None,
) -> tuple[Recording, list[tuple[str, str]]]:
    """Record cases (operation, configuration) on Linux `version`; `look` is told how many have run.

    Answers the recording, and the cases that failed in every run, which it is without.

    Cases of which no count has a majority are run again, so often as well. Raises UsageProblem if something
    that is needed is missing, or if the guest dies.
    """
    if shutil.which(QEMU) is None:
        raise UsageProblem(f"--record: no {QEMU} here; docs/linux.md says what to install")
    with TemporaryDirectory(prefix="migrc-record-") as folder:
        scratch = Path(folder)
        kernel = unpacked(kernel_package(version, packages, scratch), scratch)
        traced: list[Traced] = []
        left = list(cases)
        for _ in range(1 + _AGAIN):
            traced += _boot(kernel, left * runs, scratch, look)
            found, lost = majority(traced)
            left = [case.key for case in found if not case.steady]
            if not left:
                break
    about = {
        "kernel": kernel.release,
        "date": datetime.date.today().isoformat(),
        "machine": f"x86-64, QEMU TCG, thread=single, no5lvl; {runs} runs",
        "pcid": "no",
        "cpus": "4",
        "nodes": f"2 ({_NODES[0]} with the CPUs, {_NODES[1]} without)",
    }
    return Recording(kernel.release, False, about, tuple(found)), lost


def _boot(
    kernel: Kernel, cases: Sequence[tuple[str, str]], scratch: Path, look: Callable[[int], None]
) -> list[Traced]:
    """Let the guest run these cases, in order."""
    archive = initial_file_system(kernel, cases, scratch)
    console, trace = scratch / "console", scratch / "trace"
    process = subprocess.Popen(_command(kernel.image, archive, console, trace), stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            time.sleep(0.5)
            look(_lines(trace, b"DONE "))
    finally:
        process.kill()
        process.wait()
    try:
        with open(trace, errors="replace") as lines:
            return list(read_trace(lines))
    except (BrokenTrace, OSError) as problem:
        raise UsageProblem(f"--record: {problem}; its console's last line: {_last_line(console)}") from None


def _command(image: Path, archive: Path, console: Path, trace: Path) -> list[str]:
    nodes = []
    for number, size in enumerate(_NODES):
        nodes += ["-object", f"memory-backend-ram,id=node{number},size={size}"]
        nodes += ["-numa", f"node,nodeid={number},memdev=node{number}" + ("" if number else ",cpus=0-3")]
    memory = sum(int(size.removesuffix("M")) for size in _NODES)
    # One thread for all CPUs: with several, CPUs that spin take minutes an operation.
    machine = ["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "4", "-m", f"{memory}M", *nodes]
    lines = ["-serial", f"file:{console}", "-serial", f"file:{trace}"]
    quiet = ["-nodefaults", "-display", "none", "-no-reboot"]
    boot = ["-kernel", str(image), "-initrd", str(archive), "-append", APPEND]
    nice = ["nice", "-n", "10"] if os.name == "posix" else []
    return [*nice, QEMU, *machine, *quiet, *lines, *boot]


def _lines(path: Path, beginning: bytes) -> int:
    try:
        return path.read_bytes().count(b"\n" + beginning)
    except OSError:
        return 0


def _last_line(console: Path) -> str:
    try:
        text = console.read_text(errors="replace").strip()
    except OSError:
        return "none"
    return (text.split("\n")[-1] or "none")[-200:]
