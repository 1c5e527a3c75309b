"""A proof here beside SPIN's, of the same programs, operation for operation: `shootdown`, mainline, sc.

The twin is `spin/shootdown.pml`; it needs Debian's `spin` and a C compiler. SPIN runs with its default
reduction, its time is that of making and running the verifier. It asks for coherence and deadlocks only, ours
has all checks.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DEPTH = 1_000_000


def children_s() -> float:
    """CPU seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def spin(cpus: int) -> dict[str, Any]:
    """Make and run SPIN's verifier."""
    model = HERE / "spin" / "shootdown.pml"
    with tempfile.TemporaryDirectory() as folder:
        began = children_s()
        subprocess.run(["spin", "-a", f"-DREADERS={cpus - 1}", str(model)], cwd=folder, check=True)
        subprocess.run(["cc", "-O2", "-DSAFETY", "-o", "pan", "pan.c"], cwd=folder, check=True)
        made = children_s()
        done = subprocess.run(["./pan", f"-m{DEPTH}"], cwd=folder, check=True, capture_output=True, text=True)
        ended = children_s()
    states = re.search(r"(\d+) states, stored", done.stdout)
    errors = re.search(r"errors: (\d+)", done.stdout)
    used = re.search(r"([\d.]+)\s+total actual memory", done.stdout)
    assert states and errors and used, done.stdout
    if errors[1] != "0" or "max search depth too small" in done.stdout:
        raise SystemExit(f"SPIN did not prove it: {done.stdout}")
    return {
        "states": int(states[1]),
        "seconds": round(ended - began, 2),
        "searching_s": round(ended - made, 2),
        "mib": round(float(used[1])),
    }


def ours(cpus: int) -> dict[str, Any]:
    """The same proof in a process of its own."""
    command = [sys.executable, __file__, "--proof", str(cpus)]
    began = children_s()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report | {"seconds": round(children_s() - began, 2)}


def proof(cpus: int) -> None:
    """Prove it, and print what that took."""
    sys.path.insert(0, str(HERE.parent))
    from dataclasses import replace

    from emulator.explore.compiled.runs import exhaust
    from emulator.explore.learned import LearnedMachine
    from emulator.hardware.ordering import ARCHITECTURES
    from emulator.machine.litmus import LitmusMachine
    from scenarios.litmus import LITMUS
    from scenarios.subjects.policies import policy_factory

    litmus = LITMUS["shootdown"]
    wide = replace(litmus, programs=litmus.programs + litmus.programs[-1:] * (cpus - litmus.cpus))
    began = time.process_time()
    machine = LearnedMachine(LitmusMachine(wide, ARCHITECTURES["sc"], policy_factory("immediate")))
    found = exhaust(machine, max_states=100_000_000)
    assert found.complete and found.violation is None, found
    report = {
        "states": found.states,
        "searching_s": round(time.process_time() - began, 2),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(report))


def main() -> None:
    """Both, for each number of CPUs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cpus", nargs="*", type=int, default=[3, 4, 5], help="how many CPUs (default 3 4 5)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--proof", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.proof:
        proof(options.proof)
        return
    if missing := [name for name in ("spin", "cc") if shutil.which(name) is None]:
        parser.error(f"needs {' and '.join(missing)} (Debian: apt install spin gcc)")
    rows = []
    for cpus in options.cpus:
        rows.append({"cpus": cpus, "spin": spin(cpus), "ours": ours(cpus)})
        if not options.json:
            for name in ("spin", "ours"):
                told = ", ".join(
                    f"{key} {value:,}" for key, value in rows[-1][name].items() if value is not None
                )
                print(f"{cpus} CPUs, {name}: {told}", flush=True)
    if options.json:
        print(json.dumps({"benchmark": "spin", "rows": rows}))


if __name__ == "__main__":
    main()
