"""Which broken rules count. What does not count is not noted at all, so that a run goes on behind it."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from emulator.checks.violation import Violation


class Heed(NamedTuple):
    """The rules that count, all of them if `rules` is empty, without `ignored`. Wildcards are welcome."""

    rules: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """It makes a difference."""
        return bool(self.rules or self.ignored)

    def counts(self, rule: str) -> bool:
        """A violation of this rule is one."""
        if any(fnmatchcase(rule, pattern) for pattern in self.ignored):
            return False
        return not self.rules or any(fnmatchcase(rule, pattern) for pattern in self.rules)

    def asks(self, rule: str) -> bool:
        """It names this rule: some are looked at only where somebody asks for them."""
        return any(fnmatchcase(rule, pattern) for pattern in self.rules) and self.counts(rule)

    def of(self, broken: Violation | None) -> Violation | None:
        """The violation if it counts."""
        return broken if broken is not None and self.counts(broken.rule) else None

    def __str__(self) -> str:
        """In words, empty if it makes no difference."""
        parts = [f"only {', '.join(self.rules)}"] if self.rules else []
        return "; ".join([*parts, *([f"ignored: {', '.join(self.ignored)}"] if self.ignored else [])])


ALL = Heed()


class Noted(list[Violation]):
    """A check's violations, without those that do not count."""

    def __init__(self, heed: Heed) -> None:
        super().__init__()
        self._heed = heed

    def append(self, violation: Violation) -> None:
        """Note it, if it counts."""
        if self._heed.counts(violation.rule):
            super().append(violation)

    def __iadd__(self, more: Iterable[Violation]) -> Noted:  # type: ignore[override, misc]
        for violation in more:
            self.append(violation)
        return self
