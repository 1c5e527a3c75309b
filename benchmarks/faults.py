"""Faults at random times: does a command end as documented, with what is through, and leave nothing behind?

    python benchmarks/faults.py 100 --seed 0 [--only stress] [--seconds 3600]

Each case starts `run`, `stress`, `sweep` or `check` on Ray, waits for a random time and then kills or stops
one of its processes (driver, memory, a CPU or worker, raylet, gcs), signals it or takes its sockets away; or
it gives it a full disk, no /dev/shm, or a folder that cannot be written (root, a mount namespace). Looked at
are the exit code, standard error (one line, no traceback), the document (`stopped`), what is left behind
(processes, files), and that the same command goes on to its end from what was kept. Exit code 1 if something
is not as documented.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "scenarios")
LONGEST_S = 300.0
"""From the fault to the end: an actor that stands still is lost after 20 s, one that starts after 120 s, Ray
after 60 s. On a busy machine all of it takes longer."""

START_S = 90.0
LATEST_S = 3.0
FEW = ("--set", "threads.accesses=300", "--cpus", "2", "--policy", "immediate", "--quiet")
TEST = ("shootdown", "--policy", "immediate", "--arch", "x86", "--json")
SEARCH = (
    "hint-promotes-pending",
    "--policy",
    "migrc:v9",
    "--arch",
    "sc",
    "--strategy",
    "exhaustive",
    "--json",
)


class Verb(NamedTuple):
    """A command that would take long, the file that it keeps things in, and how it is brought to an end from
    there: the same command, or a shorter one."""

    arguments: tuple[str, ...]
    kept: str
    rest: tuple[str, ...]


VERBS = {
    "run": Verb(
        (
            "run",
            "tiering",
            "--cpus",
            "2",
            "--set",
            "threads.accesses=3000000",
            "--json",
            "--record",
            "kept.mrec",
        ),
        "kept-immediate.mrec",
        ("replay", "kept-immediate.mrec", "--json"),
    ),
    "stress": Verb(
        ("stress", *TEST, "--runs", "1000000", "--resume", "kept"),
        "kept",
        ("stress", *TEST, "--runs", "1", "--resume", "kept"),
    ),
    "sweep": Verb(
        ("sweep", "tiering", "--vary", "seed=*60", "--workers", "2", "--out", "kept.jsonl", *FEW, "--json"),
        "kept.jsonl",
        ("sweep", "tiering", "--vary", "seed=*60", "--out", "kept.jsonl", *FEW, "--json"),
    ),
    "check": Verb(
        ("check", *SEARCH, "--workers", "2", "--resume", "kept"),
        "kept",
        ("check", *SEARCH, "--workers", "2", "--resume", "kept"),
    ),
}


class Fault(NamedTuple):
    """What is done to whom: a signal (`who`: driver, or a part of the command line of a child), or what the
    command is started in (`shell`: what a shell does first in a mount namespace of its own).

    `codes`: exit codes that are right. `message`: standard error has one line about it.
    """

    who: str = ""
    number: int = 0
    shell: str = ""
    codes: tuple[int, ...] = (3,)
    message: bool = True


ACTOR = "actor"
AGENT = "ray::DashboardAgent"
RAYS_OWN = re.compile(r"IDLE|Agent|Spill|Restore")
FAULTS = {
    "actor killed": Fault(ACTOR, signal.SIGKILL),
    "actor stopped": Fault(ACTOR, signal.SIGSTOP),
    "raylet killed": Fault("raylet/raylet", signal.SIGKILL),
    "raylet stopped": Fault("raylet/raylet", signal.SIGSTOP),
    "agent killed": Fault(AGENT, signal.SIGKILL),
    "gcs killed": Fault("gcs/gcs_server", signal.SIGKILL),
    "gcs stopped": Fault("gcs/gcs_server", signal.SIGSTOP),
    "sockets removed": Fault("sockets"),
    "full disk": Fault(shell="mount -t tmpfs -o size=300k none $TMPDIR", codes=(2, 3)),
    "no /dev/shm": Fault(shell="mount -t tmpfs -o ro none /dev/shm", codes=(0, 2, 3)),
    "read-only folder": Fault(shell="mount --bind . . && mount -o remount,ro,bind . && cd $PWD", codes=(2,)),
    "read-only home": Fault(shell="mount --bind $HOME $HOME && mount -o remount,ro,bind $HOME", codes=(0,)),
    "SIGINT": Fault("driver", signal.SIGINT, codes=(130,)),
    "SIGTERM": Fault("driver", signal.SIGTERM, codes=(143,), message=False),
    "SIGHUP": Fault("driver", signal.SIGHUP, codes=(129,), message=False),
    "driver killed": Fault("driver", signal.SIGKILL, codes=(-9,), message=False),
}
# Runs that lose an actor are counted, and others are made. All else ends.
GOES_ON = {
    ("stress", "actor killed"),
    ("stress", "actor stopped"),
    ("stress", "sockets removed"),
}


class Ended(NamedTuple):
    """How a case came out: seconds from the fault to the end, exit code, problems."""

    seconds: float
    code: int
    said: str
    problems: list[str]


def environment(temporary: Path, mark: str) -> dict[str, str]:
    """Of the command: its own folder for temporary files, and a mark that its processes inherit."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(temporary),
        "FAULTS": mark,
        "HOME": str(temporary.parent / "home"),
    }


def marked(mark: str) -> list[str]:
    """Command lines of processes that have inherited it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if f"FAULTS={mark}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(" ".join(process.cmdline())[:60])
    return found


def victims(driver: psutil.Process, who: str) -> list[psutil.Process]:
    """The driver's processes of that kind that are there now."""
    if who == "driver":
        return [driver]
    found = []
    for process in driver.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            title = words[0] if words else ""
            if who in title or (who == ACTOR and title.startswith("ray::") and not RAYS_OWN.search(title)):
                found.append(process)
    return found


def strike(random: Random, run: subprocess.Popen[bytes], fault: Fault, temporary: Path) -> None:
    """Wait until there is somebody, and for a random time; then do it."""
    driver = psutil.Process(run.pid)
    deadline = time.monotonic() + START_S
    who = fault.who if fault.who == "driver" else ACTOR
    while run.poll() is None and time.monotonic() < deadline and not victims(driver, who):
        time.sleep(0.05)
    time.sleep(random.uniform(0.0, (4 if who == "driver" else 1) * LATEST_S))
    if run.poll() is not None:
        return
    if fault.who == "sockets":
        for path in temporary.glob("migrc-*/*"):
            if path.is_socket():
                path.unlink(missing_ok=True)
        return
    while run.poll() is None and time.monotonic() < deadline:
        if there := victims(driver, fault.who):
            with contextlib.suppress(psutil.Error):
                random.choice(there).send_signal(fault.number)
                return
        time.sleep(0.05)


def case(random: Random, verb: Verb, fault: Fault, goes_on: bool, folder: Path) -> Ended:
    """Run one, and look at everything that it leaves."""
    work, temporary, mark = folder / "work", folder / "t", f"{os.getpid()}-{folder.name}"
    for path in (work, temporary, folder / "home"):
        path.mkdir()
    first = f"{fault.shell} && " if fault.shell else ""
    arguments = verb.arguments
    if fault.shell:
        # Such a command is to begin, not to last.
        arguments = tuple(
            "seed=1,2" if word == "seed=*60" else "2" if word == "1000000" else word for word in arguments
        )
        arguments = tuple(
            "threads.accesses=2000" if word == "threads.accesses=3000000" else word for word in arguments
        )
    words = COMMAND + tuple(word.replace("*60", ",".join(map(str, range(1, 61)))) for word in arguments)
    shell = ["unshare", "-m", "sh", "-c", f"{first}exec {shlex.join(words)}"] if first else list(words)
    env = environment(temporary, mark)
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as errors:
        run = subprocess.Popen(shell, cwd=work, env=env, stdout=out, stderr=errors)
        if not first:
            strike(random, run, fault, temporary)
        struck = time.monotonic()
        ending = goes_on and run.poll() is None
        if ending:
            time.sleep(LATEST_S)
            if run.poll() is None:
                run.send_signal(signal.SIGINT)
        problems: list[str] = []
        try:
            run.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            problems.append(f"did not end within {LONGEST_S:.0f} s")
            run.kill()
            run.wait()
    seconds = time.monotonic() - struck
    said = (folder / "err").read_text(errors="replace")
    code = run.returncode
    right = {*fault.codes, *((130, 0, 3) if goes_on else ())}
    if fault.who == "driver" and not said and not (folder / "out").stat().st_size:
        right.add(-fault.number)  # It came before Python did.
    if code not in right:
        problems.append(f"exit code {code}")
    lines = [line for line in said.splitlines() if line.startswith("migrc: error") or "interrupted" in line]
    if "Traceback" in said or (fault.message and code not in (0, 129, 143) and len(lines) != 1):
        problems.append(f"{len(lines)} lines of error in {said[-300:]!r}")
    problems += document(folder, code)
    if code == -signal.SIGKILL:
        problems += swept(work, env)
    until = time.monotonic() + 10
    while (left := marked(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    if left:
        problems.append(f"processes left: {left}")
    if files := [path.name for path in temporary.iterdir()]:
        problems.append(f"files left: {files}")
    if (work / verb.kept).exists():
        problems += resumed(verb, work, env)
    return Ended(seconds, code, " ".join(lines)[:160] or said.strip()[-160:], problems)


def document(folder: Path, code: int) -> list[str]:
    """What is wrong with the document of a command that could say something."""
    text = (folder / "out").read_text(errors="replace")
    if code in (-9, 0, 1) or not text:
        return []
    try:
        found = json.loads(text)
    except ValueError:
        return [f"no document: {text[:80]!r}"]
    return (
        []
        if found.get("stopped") or found.get("interrupted")
        else ["the document does not say what stopped it"]
    )


def swept(work: Path, env: dict[str, str]) -> list[str]:
    """The next session removes what a killed one has left."""
    words = (*COMMAND, "stress", *TEST, "--runs", "2")
    done = subprocess.run(words, cwd=work, env=env, capture_output=True, text=True, timeout=LONGEST_S)
    return [f"the next session: exit code {done.returncode}: {done.stderr[-200:]}"] if done.returncode else []


def resumed(verb: Verb, work: Path, env: dict[str, str]) -> list[str]:
    """The file that was kept is whole, and the command goes on from it to its end."""
    rest = tuple(word.replace("*60", ",".join(map(str, range(1, 61)))) for word in verb.rest)
    done = subprocess.run((*COMMAND, *rest), cwd=work, env=env, capture_output=True, text=True, timeout=600)
    # A recording that was cut is told as such, behind what is in it.
    if done.returncode not in ((0, 2) if rest[0] == "replay" else (0,)):
        return [f"going on: exit code {done.returncode}: {done.stderr[-200:]}"]
    found = json.loads(done.stdout)
    if rest[0] == "sweep" and len(found["points"]) != 60:
        return ["going on: not 60 points"]
    if rest[0] == "replay" and (found.get("violations") or found.get("differs")):
        return [f"the recording differs: {str(found)[:200]}"]
    return []


def cases(only: str) -> Iterator[tuple[str, str]]:
    """Every fault of every verb, again and again."""
    every = [(verb, fault) for fault in FAULTS for verb in VERBS if re.search(only, f"{verb}: {fault}")]
    while True:
        yield from every


def main() -> int:
    """So many cases; exit code 1 if one is not as documented."""
    parser = argparse.ArgumentParser(description="Faults at random times.")
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases in whose name ('stress: SIGINT') this is found")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    began = time.monotonic()
    found: dict[tuple[str, str], list[Ended]] = defaultdict(list)
    for number, (verb, fault) in zip(range(options.count), cases(options.only), strict=False):
        if time.monotonic() - began > options.seconds:
            break
        random = Random(f"{options.seed}/{number}")
        with tempfile.TemporaryDirectory(prefix="f", dir="/tmp") as name:
            ended = case(random, VERBS[verb], FAULTS[fault], (verb, fault) in GOES_ON, Path(name))
        found[verb, fault].append(ended)
        print(
            f"{number} {verb}: {fault}: {ended.seconds:.1f} s, exit code {ended.code}: {ended.said}",
            flush=True,
        )
        for problem in ended.problems:
            print(f"  NOT AS DOCUMENTED: {problem}", flush=True)
    bad = sum(bool(one.problems) for many in found.values() for one in many)
    total = sum(map(len, found.values()))
    print("\n| case | times | seconds | exit codes |\n|---|---|---|---|")
    for (verb, fault), many in sorted(found.items()):
        longest = max(one.seconds for one in many)
        codes = ", ".join(map(str, sorted({one.code for one in many})))
        print(f"| {verb}: {fault} | {len(many)} | {longest:.1f} | {codes} |")
    print(f"{total} cases, seed {options.seed}: {bad} not as documented")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
