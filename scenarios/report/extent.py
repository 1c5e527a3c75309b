"""What a conformance run says at its end: what was reached, what was not, and one line that judges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scenarios.runs.trust import Trust


def in_words(trust: Trust) -> Iterable[str]:
    """Two lines or more; the last one says whether it may be trusted."""
    of = trust.of
    apart = of.left_out + len(of.tests) - len(trust.applied)
    out = f", {apart} left out, which are about another mmu or policy" if apart else ""
    yield f"conformance of {of.name}: {len(trust.applied)} tests apply{out}"
    yield (
        f"  reached: {len(trust.proved)} proved, {len(trust.searched)} searched only, "
        f"{len(trust.alike)} break as expected, {len(trust.broken)} break and must not"
    )
    if trust.vacuous:
        tests = sorted({one.job.subject.name for one in trust.vacuous})
        yield f"  not reached: {len(trust.vacuous)} results, of {', '.join(tests)}"
    if trust.missed:
        yield f"  no run of any test counted {', '.join(trust.missed)}"
    if trust.uncalled:
        yield f"  never called: {', '.join(trust.uncalled)}"
    yield trust.verdict


def as_document(trust: Trust) -> dict[str, Any]:
    """The same as values: results are named by test and architecture."""
    names = {
        part: [[one.job.subject.name, one.job.subject.arch] for one in getattr(trust, part)]
        for part in ("proved", "searched", "alike", "broken", "vacuous", "errors", "left_out")
    }
    more = {"missed": list(trust.missed), "uncalled": list(trust.uncalled), "verdict": trust.verdict}
    return {"of": trust.of.name, "tests": len(trust.applied), **names, **more}
