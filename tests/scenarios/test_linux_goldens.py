"""The shipped recordings of real kernels: whatever is not known to differ is equal."""

from __future__ import annotations

from collections import Counter

import pytest

from scenarios.linux.agreement import Outcome, verdicts
from scenarios.linux.operations import CALLS
from scenarios.linux.recorder.plan import planned
from scenarios.linux.shipped import recorded_kernels, recording_of

KERNELS = ("6.1", "6.12")


def test_both_kernels_are_recorded() -> None:
    assert tuple(recorded_kernels()) == KERNELS


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_recording_is_of_what_is_planned(kernel: str) -> None:
    recording = recording_of(kernel)
    assert recording.kernel.startswith(f"{kernel}.") and not recording.pcid
    assert [case.key for case in recording.cases] == [*planned()]
    assert all(runs >= 3 and alike >= 2 for alike, runs in (case.agreed for case in recording.cases))


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_linux_flushed_is_what_is_flushed_here(kernel: str) -> None:
    recording = recording_of(kernel)
    found = [*verdicts(recording.cases, CALLS, kernel, recording.pcid)]
    assert not [(*verdict.case.key, *verdict.differs) for verdict in found if not verdict.expected]
    count = Counter(verdict.outcome for verdict in found)
    assert count[Outcome.EQUAL] > 0.98 * len(found)
