"""Files that a run of several policies writes: one for each, by the one name that is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scenarios.disk import check_replaceable, file_problems
from scenarios.subjects.subject import safe_name
from scenarios.usage import UsageProblem


def named_files(named: Path, policies: Sequence[str], option: str, mark: bytes) -> dict[str, Path]:
    """The file of each policy: with several, FILE gets the policy's name in front of its suffix.

    UsageProblem if one of them cannot be a file, before anything has run, or one of another kind is there.
    """
    check_named(named, option, mark)
    if len(policies) == 1:
        return {policies[0]: named}
    stem, suffix = named.stem, named.suffix
    files = {one: named.with_name(f"{stem}-{safe_name(one)}{suffix}") for one in policies}
    for file in files.values():
        check_named(file, option, mark)
    return files


def check_named(file: Path, option: str, mark: bytes) -> None:
    """UsageProblem if that cannot be a file, or one of another kind is there: it would be lost."""
    # What the system may say is that it is too long a name.
    with file_problems(f"{option}: {file}", "the name of a file"):
        if file.is_dir():
            raise ValueError("a directory")
        if not file.parent.is_dir():
            raise UsageProblem(f"{option}: {file.parent}: no such directory; one that is there")
    check_replaceable(file, mark, option)
