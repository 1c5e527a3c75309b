"""The worked example of docs/writing-a-policy.md: a LUF written outside of the package, in some 45 lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emulator.explore.compiled.runs import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.policy import Policy
from emulator.machine.litmus import LitmusMachine
from scenarios.litmus import LITMUS
from scenarios.subjects.policies import policy_factory

DOCUMENT = Path(__file__).parents[2] / "docs" / "writing-a-policy.md"
ASKED = ("mapped-over-reclaimed", "unmapped-empty-reclaimed")
UNASKED = tuple(f"{name}-unasked" for name in ASKED)


@pytest.fixture(scope="module")
def minimal(tmp_path_factory: pytest.TempPathFactory) -> type[Policy]:
    """The class, as a reader would copy it out of the document."""
    (text,) = re.findall(r"^```python\n(# minimal_luf\.py\n.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    assert len(text.splitlines()) <= 60
    file = tmp_path_factory.mktemp("outside") / "minimal_luf.py"
    file.write_text(text)
    found = policy_factory(f"{file}:MinimalLuf")
    assert isinstance(found, type)
    return found


def broken(policy: type[Policy], test: str, architecture: str) -> str:
    """The rule that breaks; empty after a search that was finished."""
    machine = LitmusMachine(LITMUS[test], ARCHITECTURES[architecture], policy)
    explorer = LearnedMachine(machine)
    tally = exhaust(explorer, max_states=20_000)
    if tally.violation is not None:
        return tally.violation.rule
    assert tally.complete
    assert {"minimal_deferred", "minimal_flushes"} <= set(explorer.reached)
    return ""


@pytest.mark.parametrize("architecture", ["sc", "x86", "riscv"])
@pytest.mark.parametrize("test", [*ASKED, *UNASKED])
def test_the_old_page_is_never_read_at_its_old_address(
    minimal: type[Policy], test: str, architecture: str
) -> None:
    assert broken(minimal, test, architecture) == ""


@pytest.mark.parametrize("test", UNASKED)
def test_without_the_flush_for_an_area_it_is(minimal: type[Policy], test: str) -> None:
    class Without(minimal):  # type: ignore[misc, valid-type]
        area_changed = Policy.area_changed

    assert broken(Without, test, "x86")
