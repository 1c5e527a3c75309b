"""The tables of docs/verdicts.md, from `migrc check --all --json`: verdicts, and witnesses against postings.

`python benchmarks/verdicts.py [RESULTS.json]` prints markdown; without a file it runs the check itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scenarios.litmus import LITMUS  # noqa: E402

ARCHITECTURES = ("sc", "x86", "riscv", "arm64")


def results(arguments: list[str]) -> list[dict[str, Any]]:
    """All results, from a file or from a run of the check."""
    if arguments:
        text = Path(arguments[0]).read_text()
    else:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "scenarios", "check", "--all", "--json", "--save", folder]
            # As if every test were named: more is proved, and shrunk further.
            command += ["--schedules", "5000", "--states", "150000"]
            text = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    found: list[dict[str, Any]] = json.loads(text)["results"]
    return found


def cell(result: dict[str, Any] | None) -> str:
    """One verdict: proved, searched only, or the rule that broke and the steps of its witness."""
    if result is None:
        return ""
    if result["witness"] is None:
        return "Never" if result["complete"] else f"Never in {result['schedules']:,} runs"
    return f"Sometimes: {result['witness']['rule']} ({result['witness']['steps']} steps)"


def table(found: list[dict[str, Any]]) -> str:
    """Markdown, in the catalogue's order."""
    by_name = {(one["litmus"], one["policy"], one["arch"]): one for one in found}
    lines = ["| test | policy | sc | x86 | riscv | arm64 |", "|---|---|---|---|---|---|"]
    for litmus in LITMUS.values():
        lines.append(f"| **{litmus.name}**: {litmus.question} | | | | | |")
        for expectation in litmus.expected:
            rows = [by_name.get((litmus.name, expectation.policy, arch)) for arch in ARCHITECTURES]
            cells = [cell(row) for row in rows]
            if cells[0] and len(set(cells[:3])) == 1:
                cells[1:3] = ["same", "same"]
            lines.append(f"| | `{expectation.policy}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def witnesses(found: list[dict[str, Any]]) -> str:
    """Markdown: what breaks a posted version, on the strongest architecture where it breaks."""
    lines = ["| test | policy | arch | rule | schedule |", "|---|---|---|---|---|"]
    seen = set()
    for one in found:
        name = one["litmus"], one["policy"]
        if one["witness"] is None or one["policy"].startswith("mistake:") or name in seen:
            continue
        seen.add(name)
        witness = one["witness"]
        row = (f"{one['litmus']}", f"`{one['policy']}`", one["arch"], witness["rule"])
        lines.append(f"| {' | '.join(row)} | `{witness['schedule']}` |")
    return "\n".join(lines)


if __name__ == "__main__":
    everything = results(sys.argv[1:])
    print(table(everything))
    print("\n## Witnesses against what was posted\n")
    print(
        "`migrc replay SCHEDULE --litmus TEST --policy P --arch A` draws one. Those of `huge-batched-*` are"
    )
    print("against the postings in a kernel that puts off what Linux does not.\n")
    print(witnesses(everything))
