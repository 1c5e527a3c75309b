"""The shape of the house: what import-linter cannot say."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Their files have the names of what they are about: Linux' files, and the parts of memory.
MIRRORS = ("emulator/kernel/", "emulator/hardware/operations/")


def test_no_two_files_have_one_name_unless_it_mirrors_the_kernel() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for room in ("emulator", "actors", "scenarios"):
        for path in (ROOT / room).rglob("*.py"):
            if not path.name.startswith("__"):
                found[path.name].append(str(path.relative_to(ROOT)))
    assert found
    twice = {
        name: paths
        for name, paths in found.items()
        if len([path for path in paths if not path.startswith(MIRRORS)]) > 1
    }
    assert not twice
