"""Recorded cases: what a real kernel did while one operation on memory ran, one line a case.

A text file of tab-separated columns, below `# key: value` lines that say which kernel it was, when, and on
which machine. Whatever is wrong with a file is told in one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from scenarios.disk import content, file_problems
from scenarios.usage import UsageProblem

COLUMNS: Final = ("operation", "configuration", "calls", "send", "recv", "local", "switch", "agreed")
KEYS: Final = ("kernel", "date", "machine", "pcid", "cpus", "nodes")
RIGHT: Final = "a recording of `migrc compare linux --record`"
_MAX_FILE_BYTES: Final = 8 << 20
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_CALL: Final = re.compile(r"((\d+|full)(/pmd|/pud)?(\+ft)?|batch)")
_DONE: Final = re.compile(r"\d+|[a-z]+")
_CPU: Final = re.compile(r"\d+")
_SWITCH: Final = re.compile(r"[a-z]+\d+")
_AGREED: Final = re.compile(r"(\d+)/(\d+)")

Counts = Mapping[str, int]


class Counted(NamedTuple):
    """What one operation did in one configuration; each mapping says how often what happened.

    `calls`: flush calls of the initiator by pages of the range, `+ft` with freed tables, `/pmd` one INVLPG
    for 2 MiB, `full` the whole mm, `batch` arch_tlbbatch_flush. `send`: calls that went to other CPUs.
    `recv`: by CPU, what a flush interrupt dropped there: so many entries one by one, `full`, or `lazy`, where
    it left the mm, or `none`. `local` is the same of the initiator itself. `switch`: flushes on switches,
    `wake1` those of CPU 1 when its sleeper was woken after the operation, `op1` those during the operation.
    """

    calls: Counts
    send: int
    recv: Mapping[str, Counts]
    local: Counts
    switch: Counts


class Case(NamedTuple):
    """One line of a recording: an operation, how the other CPUs were, what was counted, and how many of the
    runs were alike."""

    operation: str
    configuration: str
    counted: Counted
    agreed: tuple[int, int]

    @property
    def key(self) -> tuple[str, str]:
        """Operation and configuration."""
        return self.operation, self.configuration

    @property
    def steady(self) -> bool:
        """More than half of the runs were alike."""
        alike, runs = self.agreed
        return alike * 2 > runs


class Recording(NamedTuple):
    """A file of cases: the kernel's release (`""` if it does not say), what else it says, and the cases."""

    kernel: str
    pcid: bool
    about: dict[str, str]
    cases: tuple[Case, ...]


def read_recording(path: Path) -> Recording:
    """The recording in a file. Raises UsageProblem, one line, for anything that is wrong."""
    with file_problems(f"{path}: not readable as recorded cases", RIGHT):
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError("larger than 8 MiB")
        text = content(path).decode()
    return parse_recording(text, str(path))


def parse_recording(text: str, label: str) -> Recording:
    """The recording that a text is; `label` names it in errors."""
    lines = list(enumerate(text.splitlines(), 1))
    about: dict[str, str] = {}
    while lines and lines[0][1].startswith("#"):
        number, line = lines.pop(0)
        key, colon, value = line[1:].partition(":")
        key, value = key.strip(), value.strip()
        if not colon or key not in KEYS or not value:
            raise _problem(label, number, f"{line!r} is no header line", f"'# KEY: VALUE', KEY {_or(KEYS)}")
        if key in about:
            raise _problem(label, number, f"{key} is said twice", "each once")
        about[key] = value
    if about.get("pcid", "yes") not in ("yes", "no"):
        raise UsageProblem(f"{label}: pcid is {about['pcid']!r}; yes or no")
    if not lines or tuple(lines[0][1].split("\t")) != COLUMNS:
        number = lines[0][0] if lines else len(about) + 1
        raise _problem(label, number, "no line of column names", f"{' '.join(COLUMNS)}, with tabs between")
    cases = tuple(_cases(lines[1:], label))
    if not cases:
        raise UsageProblem(f"{label}: no cases; a line for each below the column names")
    return Recording(about.get("kernel", ""), about.get("pcid", "yes") == "yes", about, cases)


def _cases(lines: list[tuple[int, str]], label: str) -> Iterator[Case]:
    seen: dict[tuple[str, str], int] = {}
    for number, line in lines:
        case = _case(line, label, number)
        if case.key in seen:
            text = f"{' '.join(case.key)} is in line {seen[case.key]} already"
            raise _problem(label, number, text, "each case once")
        seen[case.key] = number
        yield case


def _case(line: str, label: str, number: int) -> Case:
    cells = line.split("\t")
    if len(cells) != len(COLUMNS):
        raise _problem(label, number, f"{len(cells)} columns", f"{len(COLUMNS)}, with tabs between")
    operation, configuration, calls, send, recv, local, switch, agreed = cells
    for name, column in ((operation, "operation"), (configuration, "configuration")):
        if not _NAME.fullmatch(name):
            raise _problem(label, number, f"{column}: {name!r} is no name", "such as munmap_8 and s1")
    if not re.fullmatch(r"\d{1,9}", send):
        raise _problem(label, number, f"send: {send!r} is no count", "a whole number")
    runs = _AGREED.fullmatch(agreed)
    if runs is None or int(runs[1]) > int(runs[2]) or int(runs[1]) < 1:
        raise _problem(label, number, f"agreed: {agreed!r} is not possible", "such as 3/3")

    def counts(text: str, column: str, keys: re.Pattern[str], right: str) -> dict[str, int]:
        found = _object(text, label, number, column)
        for key, count in found.items():
            if not keys.fullmatch(key) or type(count) is not int or count < 1:
                raise _problem(label, number, f"{column}: {key!r} is {count!r}", right)
        return found

    received = {}
    for cpu, done in _object(recv, label, number, "recv").items():
        if not _CPU.fullmatch(cpu) or not isinstance(done, dict) or not done:
            raise _problem(label, number, f"recv: {cpu!r} is {done!r}", 'such as {"1":{"full":1}}')
        received[cpu] = counts(json.dumps(done), f"recv of CPU {cpu}", _DONE, 'such as {"8":1} or {"full":1}')
    counted = Counted(
        counts(calls, "calls", _CALL, 'such as {"8":1}, {"512/pmd":1}, {"full+ft":1} or {"batch":1}'),
        int(send),
        received,
        counts(local, "local", _DONE, 'such as {"8":1} or {"full":1}'),
        counts(switch, "switch", _SWITCH, 'such as {"wake1":1}'),
    )
    return Case(operation, configuration, counted, (int(runs[1]), int(runs[2])))


def _object(text: str, label: str, number: int, column: str) -> dict[str, Any]:
    if text == "-":
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found:
        raise _problem(
            label, number, f"{column}: {text[:40]!r} is no JSON object", 'such as {"8":1}, or - for none'
        )
    return found


def _problem(label: str, number: int, problem: str, right: str) -> UsageProblem:
    return UsageProblem(f"{label}:{number}: {problem}; {right}")


def _or(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def written(recording: Recording) -> str:
    """The text of a recording, as `parse_recording` reads it."""
    lines = [f"# {key}: {value}" for key, value in recording.about.items()]
    lines.append("\t".join(COLUMNS))
    for case in recording.cases:
        calls, send, recv, local, switch = case.counted
        cells = (cell(calls), str(send), cell(recv), cell(local), cell(switch))
        agreed, runs = case.agreed
        lines.append("\t".join((*case.key, *cells, f"{agreed}/{runs}")))
    return "\n".join([*lines, ""])


def cell(counts: Mapping[str, Any] | int) -> str:
    """One column, as files have it."""
    if isinstance(counts, int):
        return str(counts)
    return json.dumps(counts, sort_keys=True, separators=(",", ":")) if counts else "-"
