"""One Ray for all live tests: starting it takes longer than any of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.session import LiveSession, register
from tests.live import lab

# Programs that run on actors must come from a module, and this one is not where actors look.
register(lab)


@pytest.fixture(scope="session")
def session() -> Iterator[LiveSession]:
    with LiveSession() as session:
        yield session
