"""`migrc stress`: what is wrong is found and recorded, what is right left alone, Ctrl-C keeps the tally."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.mode import Chaos, Mode
from actors.session import LiveSession
from emulator.checks.heed import Heed
from emulator.hardware.operations import FilemapGet, FilemapRemove
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import Forbidden, Litmus, LitmusMachine, Setup
from emulator.policies.immediate import Immediate
from scenarios.files.keeper import Keeper
from scenarios.files.recording import Recording
from scenarios.runs.reduction import shrink_litmus
from scenarios.runs.replays import Replay
from scenarios.runs.swarm import DEFAULT_LEVEL, Pace, draw_chaos
from scenarios.runs.tally import Outcome, Tally
from scenarios.runs.trials import Plan, one_run, stress, target
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.workloads.workload_file import load_workload
from tests.live.shell import HANG_S, migrc, started

pytestmark = pytest.mark.live

TINY = (
    "memory.fast_pages=64",
    "memory.slow_pages=256",
    "memory.min_free_pages=12",
    "threads.table_pages=96",
    "threads.heap_pages=16",
    "threads.hot_pages=12",
    "threads.drift_every=300",
    "threads.drift_pages=8",
    "threads.accesses=1500",
    "kernel.numa_scan_pages=128",
    "kernel.numa_scan_period_accesses=250",
    "checks.sample_every=10",
)
SPINS = """
from emulator.machine.litmus import Litmus
from emulator.hardware.operations import Cycle, Load, Store


async def spins(cpu):
    while not await Load("never"):
        await Cycle()


async def stubborn(cpu):
    await Store("word", 1)
    while True:
        pass


async def fine(cpu):
    await Store("word", 1)


def empty(setup):
    pass


SPINNING = Litmus("spinning", "?", (spins, fine), empty, (), drain=False)
STUBBORN = Litmus("stubborn", "?", (stubborn, fine), empty, (), drain=False)
"""


def stressed(
    session: LiveSession,
    name: str,
    policy: str,
    arch: str = "x86",
    runs: int = 10,
    level: int = DEFAULT_LEVEL,
) -> Outcome:
    targets = [target(Subject(LitmusName(name), policy, arch))]
    return stress(targets, Plan(0, level, runs, None), None, lambda tally: None, session)


def followed(path: Path) -> Replay:
    with Recording(path) as recording:
        following = Replay(recording, recording.machine())
        following.run(lambda transitions, position: None)
        assert recording.problem == ""
    return following


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- what is found -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "policy", "arch"),
    [
        ("shootdown", "mistake:no-wait-for-acknowledgements", "x86"),
        ("flush-notes", "mistake:no-barrier-after-flush", "riscv"),
        ("two-adders-one-taker", "mistake:walks-the-shared-list", "sc"),
    ],
)
def test_a_mistake_is_found_and_its_recording_comes_out_again(
    session: LiveSession, name: str, policy: str, arch: str
) -> None:
    outcome = stressed(session, name, policy, arch, runs=40)
    (tally,) = outcome.tallies
    assert outcome.found and tally.findings
    for finding in tally.findings:
        assert finding.recording is not None and finding.recording.is_file()
        following = followed(finding.recording)
        assert following.different is None
        assert finding.rule in {violation.rule for violation in following.referee.violations()}
    with Recording(tally.findings[0].recording or Path()) as recording:
        shrunk = shrink_litmus(recording, 5.0)
    assert shrunk is not None and shrunk.witness is not None
    assert shrunk.after <= shrunk.cut <= shrunk.before


def test_behind_a_rule_that_does_not_count_another_one_is_found(session: LiveSession) -> None:
    subject = Subject(LitmusName("shootdown"), "mistake:no-wait-for-acknowledgements", "x86")
    targets = [target(replace(subject, heed=Heed(ignored=("grace*",))))]
    outcome = stress(targets, Plan(0, 2, 40, None), None, lambda tally: None, session)
    (tally,) = outcome.tallies
    assert (tally.runs, tally.races) == (40, 0)
    assert tally.findings and not any(rule.startswith("grace") for rule in tally.rules)
    following = followed(tally.findings[0].recording or Path())
    assert following.different is None
    assert {one.rule for one in following.referee.violations()} == {tally.findings[0].rule}


FAILS = """
from emulator.kernel.policy import Policy


class Fails(Policy):
    async def flush_zapped(self, cpu, mm, start, end, stride, freed_tables):
        raise KeyError(mm)

    async def after_unmap(self, cpu, src, dst):
        raise KeyError(src)
"""


def test_a_target_that_raises_does_not_end_the_others(session: LiveSession) -> None:
    Path("fails.py").write_text(FAILS)
    policies = ("fails.py:Fails", "immediate")
    targets = [target(Subject(LitmusName("deferred-copy"), policy, "x86")) for policy in policies]
    outcome = stress(targets, Plan(0, 0, 6, None), None, lambda tally: None, session)
    (problem,) = outcome.problems
    assert "deferred-copy under fails.py:Fails on x86: CPU 0: KeyError: 1 (" in problem
    assert [tally.runs for tally in outcome.tallies] == [0, 5]


def test_only_the_first_of_each_rule_is_kept(session: LiveSession) -> None:
    outcome = stressed(session, "shootdown", "mistake:interrupt-to-nobody")
    (tally,) = outcome.tallies
    assert tally.races == tally.runs == 10
    assert len(list(Path("recordings").iterdir())) == len({one.recording for one in tally.findings})
    assert len(tally.findings) == len(tally.rules)


def test_a_deadlock_is_a_violation_and_the_next_run_goes_on(session: LiveSession) -> None:
    outcome = stressed(session, "crossing-flushes", "mistake:lock-order", runs=80)
    (tally,) = outcome.tallies
    assert tally.runs == 80
    assert 0 < tally.rules["deadlock"] < 80
    (finding,) = tally.findings
    assert "Lock(migrc_lock." in finding.text
    assert finding.recording is not None
    following = followed(finding.recording)
    assert (following.different, following.rules_again) == (None, True)
    with Recording(finding.recording) as recording:
        shrunk = shrink_litmus(recording, 5.0)
    assert shrunk is not None and shrunk.rule == "deadlock"


def test_what_a_program_raises_for_a_rule_ends_its_run_only(session: LiveSession) -> None:
    outcome = stressed(session, "allocation-needs-the-flush", "mistake:no-flush-under-pressure", runs=3)
    (tally,) = outcome.tallies
    assert tally.rules == {"allocation failed": 3}
    assert tally.findings[0].recording is not None
    assert followed(tally.findings[0].recording).different is None


def test_a_program_without_an_end_is_a_violation(session: LiveSession, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SPINS)
    spinning = target(Subject(LitmusName("spinning", str(file)), "immediate", "x86"))
    tally = Tally(spinning)
    one_run(session, tally, Pace(2), Chaos(0), 0)
    assert tally.rules == {"no end": 1}
    assert tally.findings[0].recording is not None
    following = followed(tally.findings[0].recording)
    assert (following.different, following.rules_again) == (None, True)


def test_a_cpu_that_never_says_a_word_is_replaced(session: LiveSession, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SPINS)
    stubborn = target(Subject(LitmusName("stubborn", str(file)), "immediate", "x86"))
    result = session.run(
        stubborn.machine, patience_s=1.0, mode=Mode(True, True, Chaos(0)), keep=lambda e, c: None
    )
    assert [violation.rule for violation in result.violations] == ["silence"]
    assert not stressed(session, "shootdown", "immediate", runs=2).found


def test_a_run_whose_actor_is_lost_is_counted_apart(session: LiveSession, tmp_path: Path) -> None:
    """It says nothing of the policy: no rule is broken, and the next runs are made."""
    mark = tmp_path / "died"
    file = tmp_path / "mine.py"
    file.write_text(
        SPINS + "import os, pathlib\nasync def dies(cpu):\n    await Load('x')\n"
        f"    mark = pathlib.Path({str(mark)!r})\n"
        "    if not mark.exists():\n        mark.touch()\n        os._exit(1)\n"
        "DIES = Litmus('dies', '?', (dies, fine), empty, (), drain=False)\n"
    )
    targets = [target(Subject(LitmusName("dies", str(file)), "immediate", "x86"))]
    outcome = stress(targets, Plan(0, 0, 3, None), None, lambda tally: None, session)
    assert (outcome.count("lost"), outcome.count("runs"), outcome.found) == (1, 2, False)


def test_a_stress_that_ended_goes_on_from_its_file(
    session: LiveSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def noting(seed: int, run: int, level: int, pace: Pace) -> Chaos:
        drawn.append(run)
        paces.append((pace.lengths(), sorted(pace.contested)))
        return draw_chaos(seed, run, level, pace)

    paces: list[Any] = []
    monkeypatch.setattr("scenarios.runs.trials.draw_chaos", noting)
    policies = ("immediate", "mistake:interrupt-to-nobody")
    targets = [target(Subject(LitmusName("shootdown"), policy, "x86")) for policy in policies]

    def going(runs: int) -> Outcome:
        plan = Plan(0, DEFAULT_LEVEL, runs, None)
        return stress(targets, plan, None, lambda tally: None, session, resume=tmp_path / "half")

    first = going(5)
    told = paces[-1]
    second = going(9)
    assert drawn == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    # The right one's next run knows what its runs of the first session have shown.
    assert len(paces[6][0][0]) == 3 and paces[6][1] == sorted({*paces[6][1], *told[1]})
    assert [tally.runs for tally in second.tallies] == [5, 4]
    assert second.tallies[1].findings == first.tallies[1].findings
    assert second.tallies[1].rules["grace period: frame reused"] == 4
    assert second.elapsed_s > first.elapsed_s
    assert len(second.latencies["immediate"]["delivery"]) > len(first.latencies["immediate"]["delivery"])
    # Nothing is left to do.
    assert going(9).count("runs") == 9 and len(drawn) == 9


# --- what is left alone ------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 2, 3])
def test_a_right_policy_breaks_no_rule(session: LiveSession, level: int) -> None:
    for name in ("shootdown", "dirty-entry-cached", "two-allocators"):
        outcome = stressed(session, name, "immediate", "riscv", level=level)
        (tally,) = outcome.tallies
        assert tally.rules == {}
        # Undisturbed, all runs may come out the same by chance.
        assert min(level, 2) <= len(tally.interleavings) <= tally.runs == 10
    assert not Path("recordings").exists()


def test_a_workload_is_stressed_and_its_recording_replays(session: LiveSession, tmp_path: Path) -> None:
    tiering = target(Subject(load_workload("tiering", TINY), "migrc", "x86", 3, 4))
    chaos = draw_chaos(1, 2, DEFAULT_LEVEL, Pace(3))
    file = tmp_path / "r.mrec"
    with Keeper.of(tiering.subject.header(chaos), file, lambda text: None) as keeper:
        mode = Mode(True, True, chaos, tiering.most)
        result = session.run(tiering.machine, mode=mode, keep=keeper.keep)
        keeper.end(result, "")
    assert result.violations == []
    assert followed(file).different is None


@pytest.mark.parametrize(("stands_still", "broken"), [(True, []), (False, ["removed"])])
def test_a_cpu_stands_still_before_it_removes_a_page_from_the_cache(
    session: LiveSession, stands_still: bool, broken: list[str]
) -> None:
    def setup(setup: Setup) -> None:
        pfn = setup.page(8)
        setup.in_page_cache(pfn, 1, 0)

    async def removes(cpu: PerCpu) -> None:
        await FilemapRemove(1, 0, 1, 0)

    async def looks(cpu: PerCpu) -> None:
        for _ in range(50):
            if await FilemapGet(1, 0) < 0:
                raise Forbidden("removed", "it is not there any more")

    litmus = Litmus("removed", "?", (removes, looks), setup, (), drain=False)
    machine = LitmusMachine(litmus, ARCHITECTURES["sc"], Immediate)
    chaos = Chaos(1, order=(0, 1))
    if stands_still:
        chaos = chaos._replace(meetings=((0, "w cache 1 0", 1),))
    result = session.run(machine, mode=Mode(watched=True, chaos=chaos))
    assert [violation.rule for violation in result.violations] == broken


def test_actors_are_reused(session: LiveSession) -> None:
    def processes() -> set[int]:
        actors = [session._memory, *session._cpus.values()]
        return set(ray.get([actor.__ray_call__.remote(lambda self: os.getpid()) for actor in actors]))

    stressed(session, "shootdown", "immediate", runs=1)
    before = processes()
    outcome = stressed(session, "crossing-flushes", "mistake:interrupts-off", runs=30)
    assert outcome.tallies[0].rules, "runs that get stuck do not end actors either"
    stressed(session, "two-adders-one-taker", "migrc:v3", runs=2)
    assert before <= processes()


# --- the command -------------------------------------------------------------------------------


def test_a_stress_that_is_killed_has_kept_what_is_through(tmp_path: Path) -> None:
    arguments = ("shootdown", "--policy", "immediate", "--arch", "x86", "--resume", "half", "--runs")
    half = tmp_path / "half"

    def through() -> int:
        tallies = json.loads(half.read_text())["tallies"] if half.exists() else []
        return sum(tally["runs"] for tally in tallies)

    with started("stress", *arguments, "1000000", folder=tmp_path) as run:
        deadline = time.monotonic() + HANG_S
        while through() < 2:
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        run.kill()
    kept = through()
    done = migrc("stress", *arguments, str(kept), "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"] == kept
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".half")] == []


def test_the_command_reports_and_what_it_names_can_be_run(tmp_path: Path) -> None:
    arguments = ("deferred-copy", "--policy", "mistake:skip-test-inverted", "--runs", "6", "--json")
    done = migrc("stress", *arguments, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["runs"], document["interrupted"]) == (6, False)
    assert document["races"] == 6
    results = document["results"]
    assert [(one["arch"], one["runs"]) for one in results] == [("x86", 3), ("riscv", 3)]
    recording = results[0]["findings"][0]["recording"]
    assert f"the recording is {recording}" in done.stderr
    done = migrc("replay", recording, folder=tmp_path)
    assert done.returncode == 1
    assert "CPU 0" in done.stdout
    cut = Path("cut.mrec")
    cut.write_bytes(Path(recording).read_bytes()[:-20])
    done = migrc("replay", str(cut), "--json", folder=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["whole"], document["same"]) == (1, False, True)
    assert document["problem"].startswith("cut at byte ")
    whole = Path(recording).read_bytes()
    cut.write_bytes(whole.replace(b"migrc-recording 2", b"migrc-recording 9", 1))
    done = migrc("replay", str(cut), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "another format" in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_keeps_the_tally(tmp_path: Path, as_json: bool) -> None:
    endless = ("shootdown", "--policy", "mistake:interrupt-to-nobody", "--seconds", "600")
    arguments = (*endless, *["--json"] * as_json)
    with started("stress", *arguments, folder=tmp_path, start_new_session=True) as run:
        assert run.stderr is not None
        # Told when it is in the tally.
        assert any("; the recording is " in line for line in run.stderr)
        # As a terminal does it: the actors get it, too.
        os.killpg(run.pid, signal.SIGINT)
        output, errors = run.communicate(timeout=HANG_S)
    assert run.returncode == 130, errors
    assert errors.endswith("migrc: interrupted\n")
    if as_json:
        document = json.loads(output)
        assert document["interrupted"] is True
        assert document["races"] == document["runs"] > 0
    else:
        assert "grace period: frame reused" in output
        assert "migrc replay recordings/shootdown--" in output


@pytest.mark.parametrize(
    ("name", "mmu", "mistake"),
    [
        ("broadcast-synced", "x86-invlpgb", "mistake:no-tlbsync"),
        ("rar-slot-reused", "x86-rar", "mistake:rar-slot-unlocked"),
    ],
)
def test_tlbs_drop_what_other_cpus_ask(session: LiveSession, name: str, mmu: str, mistake: str) -> None:
    """With INVLPGB no program takes part: each TLB does it at some moment, and recordings say when."""
    subjects = [Subject(LitmusName(name), policy, "x86", mmu=mmu) for policy in ("immediate", mistake)]
    outcome = stress(
        [target(one) for one in subjects], Plan(0, 2, 16, None), None, lambda tally: None, session
    )
    right, wrong = outcome.tallies
    assert not right.rules and wrong.races
    following = followed(wrong.findings[0].recording or Path())
    assert following.different is None and following.referee.violation is not None
