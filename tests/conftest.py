"""Settings for every test: property tests have no clock and draw the same examples each time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

# A busy machine is no failure, and a suite that differs from run to run cannot be trusted.
settings.register_profile("stable", deadline=None, derandomize=True)
settings.load_profile("stable")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, one process has all tests that start Ray, so that there is one Ray at a time."""
    from xdist.scheduler import LoadScopeScheduling

    class RayInOneProcess(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "live" if nodeid.startswith("tests/live/") else nodeid

    return RayInOneProcess(config, log)
