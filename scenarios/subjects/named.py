"""Which litmus tests, and which bugs of the history, somebody means by names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from scenarios.history import BUGS
from scenarios.history.bug import Bug
from scenarios.litmus import LITMUS
from scenarios.subjects.programs import LitmusName, described, litmus_named
from scenarios.usage import UsageProblem, did_you_mean


def tests_named(names: Sequence[str], every: bool) -> list[LitmusName]:
    """The litmus tests that arguments name. UsageProblem if they name none."""
    if every and names:
        raise UsageProblem("--all and a name: one or the other")
    if every:
        if not LITMUS:
            raise UsageProblem("--all: no litmus tests are shipped")
        return [LitmusName(name) for name in LITMUS]
    if not names:
        raise UsageProblem("name a litmus test, a .py file, or --all; migrc list shows what there is")
    found: dict[str, LitmusName] = {}
    for test in (test for name in names for test in litmus_named(name)):
        if (other := found.setdefault(test.name, test)) != test:
            raise UsageProblem(
                f"two litmus tests are named {test.name!r}: {described(other)} and {described(test)}; "
                "one name each, or one check each"
            )
    return list(found.values())


def bugs_named(names: Sequence[str]) -> list[Bug]:
    """The bugs of the history that arguments name, all without any. UsageProblem if a name means none."""
    found: dict[str, Bug] = {}
    for name in names:
        meant = {
            bug.name: bug for bug in BUGS.values() if fnmatchcase(bug.name, name) or name in bug.known_as
        }
        if not meant:
            raise UsageProblem(f"--history: no bug {name!r}; {did_you_mean(name, BUGS)}, a commit or a CVE")
        found |= meant
    return list((found if names else BUGS).values())
