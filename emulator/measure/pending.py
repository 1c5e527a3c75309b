"""How many pages were pending at most, as the policy's own words tell it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from emulator.hardware.operations import TABLE
from emulator.hardware.operations.places import word
from emulator.kernel.policy import Policy
from emulator.memory.memory import Memory

_CHANGES: Final = frozenset(kind for kind, row in TABLE.items() if word in row.place.writes)


class PendingPeak:
    """Follows the words that the policy declares; `peak` in pages, of all nodes together."""

    def __init__(self, memory: Memory, policy: Policy) -> None:
        self.pending = 0
        self.peak = 0
        self.violations: list[Any] = []
        self._words = memory.words.values
        self._policy = policy

    def observe(self, cpu: int, operation: Any, answer: Any) -> None:
        """Ask the policy what a change of one of its words means."""
        policy = self._policy
        if type(operation) in _CHANGES and operation.word.startswith(policy.pending_words):
            self.pending = policy.pending_after(operation, self.pending, self._words)
            self.peak = max(self.peak, self.pending)

    def observer(self, kind: type[Any]) -> Callable[[int, Any, Any], None] | None:
        """It looks at changes of words."""
        return self.observe if kind in _CHANGES and self._policy.pending_words else None

    def walked(self, times: int) -> None:
        """Walks change no word."""

    def results(self) -> dict[str, Any]:
        """Figures for the report."""
        return {"pending_peak": self.peak}

    def finish(self) -> None:
        """Nothing to do at the end."""
