"""What no search can keep apart, told in one line: what it is, where it is kept, and what to use instead."""

from __future__ import annotations

INSTEAD = (
    "what a search can tell apart are numbers, strings, tuples, lists, dicts, frozensets, deques, functions "
    "and objects of your own classes; what CPUs share belongs into words and lists of the machine"
)


class Unsearchable(Exception):
    """A program keeps what a search cannot keep apart for it; the message, one line, says what and where."""


class Unreadable(Unsearchable):
    """Something that a program holds on to cannot be read exactly; the message, one line, names it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path = ""
        self.place = ""

    def under(self, path: str) -> None:
        """It was found at `path` of something else."""
        if not self.place:
            self.path = path + self.path

    def __str__(self) -> str:
        return f"{self.place}{self.path + ' is ' if self.path else ''}{self.what}; {INSTEAD}"
