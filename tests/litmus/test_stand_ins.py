"""Where a test says nothing of a posting, what it says of mainline counts: for a policy that is like it, too.

A copy of a shipped policy must not fail where the shipped one is not asked.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.kernel.policy import Policy
from scenarios.litmus import LITMUS
from scenarios.litmus.answers import POSTINGS
from scenarios.runs.searches import run_job
from scenarios.runs.verdict import Settings, plan
from scenarios.subjects.programs import LitmusName

GAPS = [
    (name, policy)
    for name, test in LITMUS.items()
    for policy in POSTINGS
    if test.only is Policy and policy not in {one.policy for one in test.expected}
]


@pytest.mark.parametrize(("name", "policy"), GAPS)
def test_a_posting_is_as_good_as_mainline_where_nobody_asks(name: str, policy: str, tmp_path: Path) -> None:
    (job,) = plan([LitmusName(name)], [policy], ["x86"])
    result = run_job(
        job, Settings(schedules=120, states=1000, seconds=5, folder=tmp_path), None, lambda *said: None
    )
    assert result.ok, result.reason
