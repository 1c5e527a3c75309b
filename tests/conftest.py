"""Settings for every test: property tests have no clock and draw the same examples each time."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A busy machine is no failure, and a suite that differs from run to run cannot be trusted.
settings.register_profile("stable", deadline=None, derandomize=True)
settings.load_profile("stable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests are shared among processes, one of them has all that start Ray: it starts it once."""
    for item in items:
        if item.get_closest_marker("live") is not None:
            item.add_marker(pytest.mark.xdist_group("live"))
