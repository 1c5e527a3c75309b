"""Which tests there are, and their published verdicts: the shipped goldens, or a directory of the user's.

A verdict comes from a file of verdicts, from `NAME.litmus.expected` beside the test, or from the test's own
comment (`Result: Never`; in the goldens `On x86: Sometimes` for one architecture).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from scenarios.conformance.herd_text import HerdTest, read
from scenarios.conformance.isla_text import read_isla
from scenarios.conformance.vmsa_text import read_vmsa
from scenarios.disk import content, file_problems
from scenarios.usage import UsageProblem

_OBSERVATION: Final = re.compile(r"^Observation\s+(\S+)\s+(Never|Sometimes|Always)\b", re.MULTILINE)
_STATES: Final = re.compile(r"^Test (\S+) .*\nStates \d+\n((?:.*;[ \t]*\n)*)", re.MULTILINE)
_KIND: Final = re.compile(
    r"^(\S+?)(?:\s+|\s*,\s*)(Allow|Forbid|Require)(?:ed|den|d)?[ \t\r]*(?:,.*)?$",
    re.MULTILINE | re.IGNORECASE,
)
_OBSERVED: Final = {"Allow": "Sometimes", "Forbid": "Never", "Require": "Always"}
_LISTED: Final = re.compile(r"^(?P<path>.+\.litmus),(?P<holds>[01])$", re.MULTILINE)
_HERE: Final = re.compile(r"On (\w+):\s*(Never|Sometimes|Always)")
_RESULT: Final = re.compile(r"Result:\s*(Never|Sometimes|Always)")
TOO_DEEP: Final = "expressions nested too deeply"
_LONGEST: Final = 1 << 20


class Suite(NamedTuple):
    """A memory model's tests: the language that their first line names, the architectures they are run on.

    `model`: what the verdicts are of. `bound`: of all architectures together, so that one of them may well
    never show what is allowed. `pattern`: the names of their files. `translates`: addresses are.
    """

    language: str
    archs: tuple[str, ...]
    model: str
    bound: bool
    pattern: str = "*.litmus"
    translates: bool = False


SUITES: Final[Mapping[str, Suite]] = {
    "lkmm": Suite("C", ("sc", "x86", "riscv"), "Linux' memory model", True),
    "riscv": Suite("RISCV", ("riscv",), "RVWMO", False),
    "esop": Suite("arch", ("arm64",), "Relaxed virtual memory in Armv8-A", False, "*.toml", translates=True),
    "arm64-vmsa": Suite("AArch64", ("arm64",), "AArch64's memory and translations", False, translates=True),
}


HerdState = frozenset[str]
"""A final state as its parts: `0:x5=1`, `x=2`."""


def herd_state(line: str) -> HerdState:
    """The state that herd prints so."""
    parts = [part.strip().replace("[", "").replace("]", "") for part in line.split(";")]
    return frozenset([part for part in parts if part])


class Entry(NamedTuple):
    """A test to run: its text, and by architecture whether what it asks about can happen, as published.

    The architecture "" stands for all others. `states`: all final states, None if nobody says. `problem`:
    why it cannot be read as a test.
    """

    path: str
    test: HerdTest | None
    allowed: Mapping[str, bool]
    states: frozenset[HerdState] | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """The test's, or the file's if it is none."""
        return self.test.name if self.test is not None else Path(self.path).stem


class Verdicts(NamedTuple):
    """What files say: by test's name observations and final states, by file's name whether the question's
    answer is yes."""

    observed: Mapping[str, str] = {}
    holds: Mapping[str, bool] = {}
    states: Mapping[str, frozenset[HerdState]] = {}


def _of_herd(text: str) -> Verdicts:
    """What herd's output says."""
    states = {name: frozenset(map(herd_state, lines.splitlines())) for name, lines in _STATES.findall(text)}
    return Verdicts(dict(_OBSERVATION.findall(text)), states=states)


def read_verdicts(path: Path) -> Verdicts:
    """Herd's output, or lines `path/NAME.litmus,1`. UsageProblem if it is neither."""
    with file_problems(f"--expected {path}", "herd's output, lines NAME Forbidden, or NAME.litmus,0 or ,1"):
        text = content(path).decode(errors="replace")
        listed = {Path(one["path"]).name: one["holds"] == "1" for one in _LISTED.finditer(text)}
        kinds = {name: _OBSERVED[kind.capitalize()] for name, kind in _KIND.findall(text)}
        found = _of_herd(text)._replace(holds=listed)
        found = found._replace(observed={**kinds, **found.observed})
        if not found.observed and not found.holds:
            raise ValueError("no verdict in it")
    return found


def goldens(suite: str) -> list[Entry]:
    """The shipped tests of a suite."""
    there = files("scenarios.conformance").joinpath("goldens")
    names = sorted(one.name for one in there.iterdir() if one.name.startswith(f"{suite}-"))
    return [entry(name, there.joinpath(name).read_text(), Verdicts()) for name in names]


def entries_in(directory: Path, suite: str, verdicts: Verdicts, ets2: bool = False) -> Iterator[Entry]:
    """The tests of the suite's language below a directory, by path. UsageProblem if there are none. `ets2`:
    of CPUs with FEAT_ETS2."""
    about = SUITES[suite]
    paths = sorted(path for path in directory.rglob(about.pattern) if path.is_file())
    some = False
    for path in paths:
        with file_problems(f"{path}", "a litmus test as text"):
            text = content(path)[:_LONGEST].decode(errors="replace")
        beside = path.with_name(f"{path.name}.expected")
        known = verdicts
        if beside.is_file():
            with file_problems(f"{beside}", "herd's output"):
                its = _of_herd(content(beside).decode(errors="replace"))
            known = Verdicts(
                {**its.observed, **verdicts.observed}, verdicts.holds, {**its.states, **verdicts.states}
            )
        if text.split(maxsplit=1)[:1] == [about.language]:
            some = True
            yield entry(str(path.relative_to(directory)), text, known, ets2)
    if not some:
        raise UsageProblem(
            f"{directory}: no file {about.pattern} below it begins with {about.language}; a clone of the "
            "suite's tests, or leave it out for the shipped ones"
        )


def entry(path: str, text: str, verdicts: Verdicts, ets2: bool = False) -> Entry:
    """The test that this text is, with its verdicts."""
    try:
        test = _test(text, ets2)
    except ValueError as problem:
        return Entry(path, None, {}, problem=str(problem))
    except RecursionError:
        return Entry(path, None, {}, problem=TOO_DEEP)
    everywhere = test.condition.quantifier == "forall"

    def allowed(observation: str) -> bool:
        return observation != ("Always" if everywhere else "Never")

    found: dict[str, bool] = {}
    if own := _RESULT.search(text):
        found[""] = allowed(own[1])
    if test.name in verdicts.observed:
        found[""] = allowed(verdicts.observed[test.name])
    elif Path(path).name in verdicts.holds:
        found[""] = verdicts.holds[Path(path).name] == (test.condition.quantifier == "exists")
    found |= {arch: allowed(observation) for arch, observation in _HERE.findall(text)}
    return Entry(path, test, found, verdicts.states.get(test.name))


def _test(text: str, ets2: bool) -> HerdTest:
    if text.startswith("AArch64"):
        return read_vmsa(text, ets2)
    return read_isla(text, ets2) if text.startswith("arch") else read(text)


def of_names(entries: Sequence[Entry], glob: str) -> list[Entry]:
    """Those whose names match."""
    pattern = re.compile(".*".join(map(re.escape, glob.split("*"))))
    return [one for one in entries if pattern.fullmatch(one.name)]
