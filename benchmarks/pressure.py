"""Random pressure: thousands of small machines run out of blocks, under every policy, one after another.

`python benchmarks/pressure.py [RUNS] [FIRST_SEED]` (default 10,000 runs). Each seed is one program in one
interleaving on one architecture; policies take turns. Prints what was run and, for a run that broke a
rule, what repeats it; the exit code is 1 then. The wrong policy at the end shows that the rule can be broken.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.random_pressure import CUT, REFUSED, RULE, STEPS, run  # noqa: E402

CORRECT = ("immediate", "migrc:v3", "migrc:rfc2", "migrc:v9")
WRONG = "mistake:no-flush-under-pressure"
RUNS = 10_000
SHOWN = ("migrc_deferred", "migrc_flushes", *(f"litmus_frame_reused_{order}" for order in range(3)), REFUSED)


def main(arguments: list[str]) -> int:
    """Run them all; 1 if anything broke, or if the wrong policy never did."""
    runs = int(arguments[0]) if arguments else RUNS
    first = int(arguments[1]) if len(arguments) > 1 else 0
    broken = 0
    counts: Counter[str] = Counter()
    begun = time.perf_counter()
    for seed in range(first, first + runs):
        policy = CORRECT[seed % len(CORRECT)]
        violation, counted = run(seed, policy)
        counts += counted
        if violation is not None:
            broken += 1
            print(f"seed {seed}, {policy}: {violation.rule}: {violation.text}")
    seconds = time.perf_counter() - begun
    print(f"{runs:,} runs, {counts[STEPS]:,} steps, {counts[CUT]} cut off, {seconds:.0f} s; broken: {broken}")
    print(", ".join(f"{name} {counts[name]:,}" for name in SHOWN))
    others = max(runs // 10, 100)
    found = [run(seed, WRONG)[0] for seed in range(first, first + others)]
    caught = sum(violation is not None and violation.rule == RULE for violation in found)
    print(f"{WRONG}: caught in {caught} of {others:,} runs")
    return int(broken > 0 or not caught)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
