"""What a race has led to: the answer of `harm_search`."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.checks.violation import Violation
from emulator.explore.schedule import format_schedule
from emulator.hardware.cpu import Transition
from scenarios.drawing.columns import Drawing


@dataclass(frozen=True, slots=True)
class Harm:
    """What the race called `rule` leads to, after `tried` runs that went on from it.

    `violation` breaks at the end of `schedule`, which goes through the race, as `drawing` shows; `steps` of
    it are the very way that was gone on from (0: it is a shorter one). None of it if no harm was met.
    """

    rule: str
    tried: int
    violation: Violation | None = None
    schedule: tuple[Transition, ...] = ()
    drawing: Drawing | None = None
    steps: int = 0

    def __str__(self) -> str:
        if self.violation is None:
            return f"no harm met in {self.tried:,} ways to go on from {self.rule!r}"
        return f"harm: {self.violation.rule}: {self.violation.text}"

    def as_json(self) -> dict[str, object]:
        """As plain values."""
        found = self.violation
        return {
            "of": self.rule,
            "tried": self.tried,
            "rule": None if found is None else found.rule,
            "text": None if found is None else found.text,
            "schedule": format_schedule(self.schedule) if found is not None else None,
            "columns": [] if self.drawing is None else list(self.drawing.steps),
        }
