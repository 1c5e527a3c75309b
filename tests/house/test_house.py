"""What holds for every file: its length, and a name that is found at once."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("emulator", "actors", "scenarios")
LINES = 500
EXCUSE = f"Longer than {LINES} lines because"


def sources(*folders: str) -> list[Path]:
    found = [path.relative_to(ROOT) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def test_a_long_file_says_at_its_top_why() -> None:
    long = {}
    for path in sources(*PRODUCT, "tests", "benchmarks", "docs"):
        text = (ROOT / path).read_text()
        lines = len(text.splitlines())
        if lines > LINES and EXCUSE not in (ast.get_docstring(ast.parse(text)) or ""):
            long[str(path)] = lines
    assert not long


def test_a_file_name_is_there_once() -> None:
    """But for what Python asks for, and what is named after the kernel's file that it is about."""
    kernel = {path.name for path in sources("emulator/kernel")}
    folders = defaultdict(list)
    for path in sources(*PRODUCT):
        if path.name not in kernel | {"__init__.py", "__main__.py"}:
            folders[path.name].append(str(path.parent))
    assert not {name: found for name, found in folders.items() if len(found) > 1}


def test_what_is_read_at_run_time_is_installed() -> None:
    """What `package-data` does not name, and is no module, is missing where the project is installed."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    forgotten = []
    for package in PRODUCT:
        for path in (ROOT / package).rglob("*"):
            inside = path.relative_to(ROOT / package)
            made_from = path.suffix in (".py", ".pyc") or path.name.startswith("build")
            if path.is_file() and not made_from and not any(map(inside.match, named[package])):
                forgotten.append(str(path.relative_to(ROOT)))
    assert not forgotten
