"""The catalogue hangs together: names, policies, proofs of reach; and every test runs to its end.

Whether the verdicts are right is another question.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import pytest

from emulator.checks.heed import ALL
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.ordering import ARCHITECTURES
from emulator.machine.litmus import Litmus, LitmusMachine
from emulator.machine.referee import Referee
from scenarios import litmus as catalogue
from scenarios.litmus import LITMUS
from scenarios.mistakes import MISTAKES
from scenarios.subjects.policies import policy_factory
from scenarios.subjects.programs import LitmusName, shipped
from scenarios.subjects.rules import heed_of

EACH = pytest.mark.parametrize("name", LITMUS)


def test_no_name_is_used_twice() -> None:
    modules = [
        import_module(f"{catalogue.__name__}.{found.name}") for found in iter_modules(catalogue.__path__)
    ]
    tests = [value for module in modules for value in vars(module).values() if isinstance(value, Litmus)]
    assert len(tests) == len(LITMUS)


@EACH
def test_each_policy_is_expected_something_once(name: str) -> None:
    policies = [expectation.policy for expectation in LITMUS[name].expected]
    assert policies
    assert len(set(policies)) == len(policies)
    for policy in policies:
        assert policy_factory(policy)().name in (policy, "migrc:v3")


@EACH
def test_a_never_proves_that_it_looked(name: str) -> None:
    for expectation in LITMUS[name].expected:
        if "Never" in expectation[1:4] and expectation.policy != "immediate":
            assert expectation.reached


@EACH
def test_two_to_four_cpus_and_a_question(name: str) -> None:
    test = LITMUS[name]
    assert 2 <= test.cpus <= 4
    assert len(test.question) > 10


def test_every_mistake_is_used_by_some_test() -> None:
    used = {expectation.policy for test in shipped().values() for expectation in test.expected}
    assert set(MISTAKES) <= used


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_caught_by_some_test(mistake: str) -> None:
    verdicts = {
        verdict
        for test in shipped().values()
        for expectation in test.expected
        if expectation.policy == mistake
        for verdict in map(expectation.on, ARCHITECTURES)
    }
    # The one mistake that breaks no rule; see its test.
    assert "Sometimes" in verdicts or mistake == "mistake:moved-again-without-flush"


@EACH
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_runs_to_its_end(name: str, architecture: str) -> None:
    """One run under each policy; a wrong one may end at a broken rule. On arm64 mainline is enough, where a
    test says nothing of it."""
    for expectation in LITMUS[name].expected:
        elsewhere = architecture == "arm64" and expectation.arm64 is None
        if elsewhere and (expectation.policy != "immediate" or expectation.on(architecture) is None):
            continue
        machine = LitmusMachine(LITMUS[name], ARCHITECTURES[architecture], policy_factory(expectation.policy))
        machine.heed = heed_of(LitmusName(name), ALL)
        strategy = find_strategy("random")()
        tally = search(Referee(machine), strategy, 1, Limits(1), lambda: False)
        assert not tally.cut
        if expectation.on(architecture) == "Never":
            assert tally.violation is None
