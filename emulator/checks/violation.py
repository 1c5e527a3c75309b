"""One broken rule, in a form that can travel and be printed."""

from __future__ import annotations

from typing import TypedDict


class Violation(TypedDict):
    """`rule` is the short name of what broke, `cpu` who did it (-1: nobody in particular)."""

    rule: str
    cpu: int
    text: str


# One fault tends to repeat itself; the first ones tell the story.
MAX_KEPT = 100
