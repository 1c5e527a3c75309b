"""The answer of an operation that is not enabled: nothing has changed, ask again later."""

from __future__ import annotations

from typing import Final


class Blocked:
    """Class of the single value `BLOCKED`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "BLOCKED"


BLOCKED: Final = Blocked()
