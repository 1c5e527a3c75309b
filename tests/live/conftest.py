"""One Ray for all live tests: starting it takes longer than any of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.session import LiveSession, register

# Test modules are no package, and programs that run on actors must come from a module.
sys.path.insert(0, str(Path(__file__).parent))

import lab

register(lab)


@pytest.fixture(scope="session")
def session() -> Iterator[LiveSession]:
    with LiveSession() as session:
        yield session
