"""Writes reference.md, beside this file, from the code as it is: `python docs/reference.py`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from emulator.checks.grace_period import STRICT
from emulator.kernel.percpu import KernelParameters
from emulator.machine.litmus import Expectation, Litmus, Setup
from scenarios.litmus import answers, kit, starts, steps, syscalls
from scenarios.subjects.kernel_functions import known_counters
from scenarios.subjects.kernel_settings import SETTINGS
from scenarios.subjects.rules import RULES

HEAD = """\
# Reference for litmus tests

All that a litmus test can be made of. Made from the code by `python docs/reference.py`;
[writing-a-litmus.md](writing-a-litmus.md) and [from-a-bug-report.md](from-a-bug-report.md) say how.
Everything is imported from `scenarios.litmus.kit`; `migrc functions NAME` has functions of the kernel.
Helpers take the CPU first, which is left out here."""
SECTIONS: tuple[tuple[str, ModuleType], ...] = (
    ("System calls, and what the kernel does by itself", syscalls),
    ("Steps of programs", steps),
    ("How the machine starts", starts),
    ("What is expected", answers),
)


def text() -> str:
    """The whole file."""
    parts = [HEAD]
    for title, module in SECTIONS:
        parts += _section(title, ("Helper", ""), _helpers(module))
        if constants := sorted(_constants(module)):
            parts.append(f"\nNames: {', '.join(f'`{name}`' for name in constants)}.")
    methods = [one for name, one in vars(Setup).items() if name[0] != "_" and inspect.isfunction(one)]
    parts += _section("A `setup` of one's own", ("Setup", ""), ((_call(one), _said(one)) for one in methods))
    defaults = [(f"`{one.name}`", _default(one.default)) for one in fields(Litmus)]
    parts += _section("Fields of Litmus", ("Field", "Default"), defaults)
    parts += [f"\n{_said(Litmus)}\n\n`Expectation({', '.join(Expectation._fields)})`: {_said(Expectation)}"]
    parts += _section(
        'Settings: `settings=(("hpage_order", 1), ...)`', ("Setting", "Default", ""), _settings()
    )
    parts += [
        "\n## Rules\n",
        "For `sometimes(..., RULE)`, `Litmus(rules=..., ignore=...)`, `--rule`, `--ignore`.\n",
    ]
    parts += [f"* {rule}" for rule in RULES]
    parts += [f"* {rule} (only where it is asked for by name)" for rule in STRICT]
    parts += ["\n## Counters\n", 'For `reached`; programs count others: `cpu.count("name")`.\n']
    parts += [", ".join(f"`{name}`" for name in sorted(known_counters())) + "."]
    return "\n".join(parts) + "\n"


def _section(title: str, heads: tuple[str, ...], rows: Any) -> list[str]:
    return [f"\n## {title}\n", _row(*heads), _row(*("---" for _ in heads)), *(_row(*row) for row in rows)]


def _helpers(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        own = inspect.isfunction(value) and (value.__module__, value.__name__) == (module.__name__, name)
        if own and name[0] != "_":
            yield _call(value), _said(value)


def _constants(module: ModuleType) -> Iterator[str]:
    """The other names that a module gives a value."""
    for node in ast.parse(inspect.getsource(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        for one in targets:
            if isinstance(one, ast.Name) and one.id[0] != "_" and one.id in vars(kit):
                yield one.id


def _settings() -> Iterator[tuple[str, ...]]:
    doc = " ".join((inspect.getdoc(KernelParameters) or "").split())
    said = re.split(r"(?<=[.])\s+(?=[A-Z`])", doc)
    for name, one in SETTINGS.items():
        yield f"`{name}`", f"`{one.default!r}`", " ".join(part for part in said if f"`{name}`" in part)


def _call(function: Any) -> str:
    takes = [
        str(one).partition(":")[0]
        + ("" if one.default is one.empty else f"={'PAGE' if one.default == kit.PAGE else repr(one.default)}")
        for one in inspect.signature(function).parameters.values()
    ]
    return f"`{function.__name__}({', '.join(one for one in takes if one not in ('cpu', 'self'))})`"


def _default(value: Any) -> str:
    if "MISSING" in repr(value):
        return "none: it has to be given"
    return f"`{getattr(value, '__name__', repr(value))}`"


def _said(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(text(), encoding="utf-8")
