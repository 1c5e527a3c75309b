"""One broken rule, in a form that can travel and be printed."""

from __future__ import annotations

from typing import NamedTuple


class Violation(NamedTuple):
    """`rule` is the short name of what broke, `cpu` who did it (-1: nobody in particular)."""

    rule: str
    cpu: int
    text: str


# One fault tends to repeat itself; the first ones tell the story.
MAX_KEPT = 100


def not_kept(listed: int, found: int) -> list[Violation]:
    """The last entry of a list that was cut at MAX_KEPT: how many more there were; none if it was not."""
    if not MAX_KEPT <= listed < found:
        return []
    return [Violation(rule="not listed", cpu=-1, text=f"{found - MAX_KEPT} more violations were found")]
