"""Writes history.md, beside this file, by checking every bug: `python docs/history.py` (some minutes).

With names it checks those and leaves the other sections as they are. What a section says of its bug is data
(`scenarios/history`); a test replays its schedule.
"""

from __future__ import annotations

import re
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from emulator.hardware.ordering import ARCHITECTURES
from scenarios.history import BUGS
from scenarios.history.bug import KINDS, Bug
from scenarios.runs.searches import results
from scenarios.runs.verdict import Result, Settings, plan_of_history
from scenarios.verbs.check import SCHEDULES_ALL

FILE = Path(__file__).with_name("history.md")
WIDTH = 110
HEAD = """\
# Bugs that the kernel had

Each is a litmus test that is run twice: with the fix nothing breaks in any interleaving, with the code before
it a rule does. The code before is a *mistake*, a policy that differs from mainline in that one place
([from-a-bug-report.md](from-a-bug-report.md)); the test is the same. `migrc check --history` checks all,
`migrc check --history NAME` one, by its name, commit or CVE.

Made by `python docs/history.py` from the data in `scenarios/history` and from what `check` found. *Proved*
means that every interleaving was searched. A drawing shows the shortest way to the rule that was found, one
column for each CPU; `migrc replay SCHEDULE --litmus TEST --policy MISTAKE --arch ARCH` goes that way again.

Not here, and what they would need:

* `tlb_flush_pending` read after the page-table lock was dropped (0a2c40487f3e, a9b802500ebb): huge pages
  that migrate without that lock, and locks that only acquire and release.
* a dirty bit lost between two writes to a PMD (a8f97366452e): swap of huge pages: only there is anonymous
  memory's dirty bit read.
* arm64: contiguous entries (97c5550b7631), and errata that make TLBIs be repeated.
* riscv: a new kernel mapping under Svvptc (503638e0babf), sparc: TSB (23a01138efe2): their own flush code.
* INVLPGB with page-table isolation (94a17f2dc90b), Intel RAR: ways to flush without interrupts.
* Xen: types of pages (CVE-2017-15588), gVisor: a table reused at another level: another kernel's page
  tables.
* flushes that allocations pay for: no order of events is wrong: it is a question of time.
"""


def described(bug: Bug) -> str:
    """What is data of a bug's section: its head, the interleaving, where it comes from."""
    kinds = "; ".join(KINDS[kind] for kind in bug.kinds)
    lines = [f"## {bug.name}", "", _filled(f"**{bug.title}** ({bug.reference}). {bug.story}"), ""]
    if bug.left_out:
        lines += [_filled(f"Left out: {bug.left_out}"), ""]
    lines += [
        _filled(f"* Kind: {kinds}. Affected: {bug.affected}."),
        _filled(f"* Read: {bug.source}."),
        _filled(f"* Test `{bug.test.name}`: {bug.test.question} The code before: `{bug.before}`."),
        "",
    ]
    return "\n".join(lines)


def section(bug: Bug, found: Sequence[Result]) -> str:
    """A whole section, from what was found with the fix and before it on each architecture."""
    lines = [described(bug), "| | fixed | before |", "| --- | --- | --- |"]
    for arch in ARCHITECTURES:
        of = {one.job.subject.policy: one for one in found if one.job.subject.arch == arch}
        if of:
            lines.append(f"| {arch} | {_verdict(of[bug.fixed])} | {_verdict(of[bug.before])} |")
    shown = next(one for one in found if one.witness is not None)
    assert shown.witness is not None and shown.drawing is not None
    lines += ["", f"On {shown.job.subject.arch}, `{shown.witness.schedule}`:", "", "```"]
    lines += [shown.drawing.text(WIDTH), "```", ""]
    return "\n".join(lines)


def sections(text: str) -> dict[str, str]:
    """The sections of a document, by the bug's name."""
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    named = zip(parts[1::2], parts[2::2], strict=True)
    return {name: f"## {name}\n\n{body.strip()}\n" for name, body in named}


def _verdict(result: Result) -> str:
    if not result.ok:
        raise SystemExit(f"{result.job.bug} on {result.job.subject.arch}: {result.error or result.reason}")
    if result.witness is not None:
        steps = len(result.drawing.steps) if result.drawing is not None else 0
        return f"Sometimes: {result.witness.rule} ({steps} steps)"
    return (
        f"Never, proved ({result.seen:,} states)"
        if result.complete
        else f"Never in {result.schedules:,} runs"
    )


def _filled(text: str) -> str:
    further = "  " if text.startswith("* ") else ""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def check(bugs: Iterable[Bug]) -> None:
    """Make these bugs' sections anew, each as soon as it is checked; the others stay as they are."""
    kept = sections(FILE.read_text()) if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(schedules=SCHEDULES_ALL, folder=Path(folder))
        for bug in bugs:
            found = list(results(plan_of_history([bug], []), settings, None, lambda *_: None))
            kept[bug.name] = section(bug, found)
            FILE.write_text("\n".join([HEAD, *(kept[name] for name in BUGS if name in kept)]))
    if missing := [name for name in BUGS if name not in kept]:
        raise SystemExit(f"not checked yet: {', '.join(missing)}")


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(BUGS)
    if unknown := [name for name in wanted if name not in BUGS]:
        raise SystemExit(f"no bug {', '.join(unknown)}; those are {', '.join(BUGS)}")
    check([BUGS[name] for name in wanted])
