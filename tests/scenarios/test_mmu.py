"""`--mmu`: how flushes are carried out, by name, from the command line to what is kept in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emulator.explore.exhaustive import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import ALL_NONGLOBALS, EVERYTHING, Idle
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import PRESENT, mk_pte
from emulator.hardware.tlb import GLOBAL, TlbShape
from emulator.kernel.mmu.catalogue import MMUS
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86_invlpgb import BROADCASTS as BROADCAST
from emulator.kernel.mmu.x86_invlpgb import X86Invlpgb
from emulator.kernel.mmu.x86_rar import X86Rar
from emulator.timed.engine import TimedEngine
from scenarios.files.recording import Recording, Writer
from scenarios.files.witness import Witness, load, save
from scenarios.litmus import LITMUS
from scenarios.subjects.header import Header
from scenarios.subjects.policies import policy_factory
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.subjects.workload_machine import build_machine
from scenarios.usage import UsageProblem
from scenarios.workloads.workload_file import load_workload

Migrc = Callable[..., int]
VERBS = (
    ("check", "shootdown"),
    ("run", "tiering"),
    ("stress", "shootdown"),
    ("sweep", "tiering", "--vary", "cpus=1,2"),
    ("replay", "0", "--litmus", "shootdown", "--policy", "immediate", "--arch", "sc"),
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_name_that_is_none_is_told_in_one_line(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]
) -> None:
    assert migrc(*verb, "--mmu", "x68") == 2
    told = f"--mmu: unknown mmu 'x68'; did you mean x86? known: {', '.join(sorted(MMUS))}, or your own as"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("verb", (VERBS[0], VERBS[-1]), ids=lambda verb: verb[0])
def test_two_mmus_are_two_runs(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]
) -> None:
    assert migrc(*verb, "--mmu", "") == 2
    assert capsys.readouterr().err.startswith("migrc: error: --mmu: unknown mmu ''; ")
    assert migrc(*verb, "--mmu", "x86", "--mmu", "early-ack") == 2
    assert capsys.readouterr().err == "migrc: error: --mmu: x86 and early-ack; one at a time\n"


def test_bugs_of_the_kernel_are_those_of_its_own_mmu(migrc: Migrc) -> None:
    assert migrc("check", "--history", "--mmu", "x86") == 2


def test_what_was_run_says_how(migrc: Migrc, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = "mistake:no-wait-for-acknowledgements"
    verb = ("check", "shootdown", "--policy", name, "--arch", "sc", "--json", "--save", str(tmp_path))
    assert migrc(*verb) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mmu"] == "x86"
    assert load(Path(found["file"])).subject.mmu == "x86"
    assert migrc("list", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["mmus"]] == [*MMUS, "MODULE:CLASS"]


def test_files_keep_it_and_older_ones_mean_the_first(tmp_path: Path) -> None:
    subject = Subject(LitmusName("shootdown"), "immediate", "x86", 2, mmu="early-ack")
    assert subject.title().endswith("on x86 with early-ack") and "--early-ack" in subject.file_name()
    path = tmp_path / "a.mpk"
    save(Witness(**subject.ran(), litmus="shootdown", schedule="", rule="r"), path)
    assert load(path).subject.mmu == "early-ack"
    unknown = replace(subject, mmu="other")
    save(Witness(**unknown.ran(), litmus="shootdown", schedule="", rule="r"), path)
    with pytest.raises(UsageProblem, match=f"^{path}: unknown mmu 'other'; known: arm64, early-ack"):
        load(path)
    with Writer(tmp_path / "a.rec", subject.header()):
        pass
    with Recording(tmp_path / "a.rec") as recording:
        assert recording.subject().mmu == "early-ack" and "with early-ack" in recording.header.title()
    with Writer(tmp_path / "b.rec", unknown.header()):
        pass
    with (
        Recording(tmp_path / "b.rec") as recording,
        pytest.raises(UsageProblem, match=r"b\.rec: unknown mmu 'other'; known: arm64, early-ack"),
    ):
        recording.machine()
    before = {key: value for key, value in subject.header().model_dump().items() if key != "mmu"}
    assert Header.model_validate(before).mmu == "x86"


OWN = """from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import X86

class Bare(Mmu):
    name = "bare"

class Mine(X86):
    {}

mine = X86()
"""
WRONG = {
    (
        "Mine",
        "settings = {'pcdi': True}",
    ): "--mmu mine.py:Mine: line 7: no setting 'pcdi'; did you mean pcid?",
    ("Mine", "settings = {'pcid': 1}"): "--mmu mine.py:Mine: line 7: setting pcid is 1; True or False",
    ("Mine", "def flush_tlb_func(self, cpu, info): pass"): "mine.py:8: the hook flush_tlb_func is not async",
    ("Mine", "async def flush_tlb_fun(self, cpu): pass"): "mine.py:8: flush_tlb_fun is no hook",
    ("Bare", "pass"): "--mmu mine.py:Bare: line 4: Bare has no arch_tlbbatch_add_pending, ",
    ("Min", "pass"): "--mmu mine.py:Min: no class 'Min' there; did you mean Mine?",
    ("mine", "pass"): "--mmu mine.py:mine: mine is an mmu object; name its class, X86",
}


@pytest.mark.parametrize(("name", "line"), WRONG, ids=str)
def test_what_is_wrong_with_an_mmu_of_somebodys_own_is_one_line(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], folder: Path, name: str, line: str
) -> None:
    (folder / "mine.py").write_text(OWN.format(line))
    assert migrc("check", "shootdown", "--mmu", f"mine.py:{name}") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"migrc: error: {WRONG[name, line]}") and err.count("\n") == 1


def test_a_file_that_names_somebodys_mmu_is_data(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    subject = Subject(LitmusName("shootdown"), "immediate", "x86", mmu="mine.py:Mine")
    save(Witness(**subject.ran(), litmus="shootdown", schedule="0*3", rule="r"), folder / "a.mpk")
    (folder / "mine.py").write_text(OWN.format("pass") + "raise SystemExit('it has been run')")
    assert migrc("replay", "a.mpk") == 2
    assert "a.mpk: it would import and run mine.py:Mine; --trust if that is" in capsys.readouterr().err
    (folder / "mine.py").write_text(OWN.format("pass"))
    migrc("replay", "a.mpk", "--trust")
    assert "with mine.py:Mine" in capsys.readouterr().out


BROADCASTS = [
    ("broadcast-transition", "immediate", set()),
    ("broadcast-synced", "mistake:tlbsync-elsewhere", {"access to a free frame"}),
    ("rar-slot-reused", "immediate", set()),
    ("rar-slot-reused", "mistake:rar-slot-unlocked", {"grace period: frame reused"}),
]


@pytest.mark.parametrize(("name", "policy", "harm"), BROADCASTS, ids=lambda value: str(value))
def test_reductions_lose_nothing_of_what_tlbs_do_by_themselves(
    name: str, policy: str, harm: set[str]
) -> None:
    """What one CPU drops in another's TLB may come at any moment."""
    machine = Subject(LitmusName(name), policy, "x86", mmu=LITMUS[name].mmu).litmus_machine()
    found = [exhaust(LearnedMachine(machine), reduce=reduce, all_rules=True) for reduce in (True, False)]
    assert all(one.complete for one in found)
    assert found[0].rules == found[1].rules and found[0].rules >= harm and bool(found[0].rules) == bool(harm)


@pytest.mark.parametrize(
    ("mmu", "policy"), [(X86Invlpgb, "immediate"), (X86Invlpgb, "migrc:v9"), (X86Rar, "immediate")]
)
def test_broadcasts_take_the_same_time_however_far_cpus_go_ahead(mmu: type[Mmu], policy: str) -> None:
    settings = ("threads.accesses=6000", "threads.table_pages=3072", "threads.hot_share=0.2")
    workload = load_workload("tiering", settings)
    results = []
    for options in ({}, {"compiled": False}, {"compiled": False, "lookahead": False}, {"watched": True}):
        user = workload.user_space(4, 0, None)
        machine = build_machine(workload, 4, "x86", policy_factory(policy), user, mmu)
        result = TimedEngine(machine, workload.costs.prices(), **options).run()
        assert not result.violations
        results.append((result.clocks_ns, result.waited_ns, [cpu["vmstat"] for cpu in result.cpus]))
    assert all(one == results[0] for one in results)
    assert sum(vmstat.get(BROADCAST, 0) for vmstat in results[0][2]) > 2


EMPTY = """from emulator.kernel.percpu import TlbUbc
from emulator.kernel.tlb import arch_tlbbatch_flush
from scenarios.litmus.kit import *


async def owes(cpu):
    await arch_tlbbatch_flush(cpu, TlbUbc(nr_flush_required=1))


expected = (never("immediate", "tlb_broadcasts"),)
LITMUS = Litmus("empty", "?", (owes,), pages(PAGE), expected, mmu="x86-invlpgb")
"""


def test_a_batch_is_broadcast_although_nobody_is_left_in_its_mask(
    migrc: Migrc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, owed, code in (("owed.py", EMPTY, 0), ("none.py", EMPTY.replace("nr_flush_required=1", ""), 1)):
        (tmp_path / name).write_text(owed)
        assert migrc("check", name, "--arch", "x86") == code


LEFT = """from emulator.kernel.percpu import cpumask_word
from emulator.kernel.tlb import flush_tlb_mm_range
from scenarios.litmus.kit import *


async def flushes_what_it_has_left(cpu):
    await switch_to(cpu, 2)
    before = cpu.tlbstate.ctxs[cpu.tlbstate.loaded_mm_asid].tlb_gen
    await flush_tlb_mm_range(cpu, MM, PAGE, PAGE + 1)
    if cpu.tlbstate.ctxs[cpu.tlbstate.loaded_mm_asid].tlb_gen == before:
        cpu.count("left_alone")
    if not await Load(cpumask_word(MM)) & cpu.bit:
        cpu.count("taken_out")


async def stays(cpu):
    pass


expected = (never("immediate", "left_alone", "taken_out"),)
LITMUS = Litmus(
    "left", "?", (flushes_what_it_has_left, stays), pages(PAGE), expected, settings=(("version", "6.18"),)
)
"""


def test_a_cpu_flushes_nothing_for_what_it_has_left(
    migrc: Migrc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """flush_tlb_func of v6.18, and not only where another CPU asks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "left.py").write_text(LEFT)
    assert migrc("check", "left.py", "--arch", "x86") == 0


def test_a_tlb_drops_what_is_asked_and_nothing_else() -> None:
    cpu = Cpu(0, ARCHITECTURES["x86"], TlbShape(16, 4, 16, 4), lambda batch: idle())
    entry = mk_pte(1, PRESENT)

    def left(*asked: int) -> set[tuple[int, int]]:
        for pcid in (GLOBAL, 2, 7):
            for vpn in (0x10, 0x11):
                cpu.tlb.insert(pcid, vpn, entry)
        cpu.invalidate(asked)
        return {(pcid, vpn) for pcid, vpn, _ in cpu.tlb.entries()}

    everything = {(pcid, vpn) for pcid in (GLOBAL, 2, 7) for vpn in (0x10, 0x11)}
    assert left(7, 1, 0x11, 0x12, 1) == everything - {(7, 0x11)}
    assert left(7, 1, 0, -1, 1) == everything - {(7, 0x10), (7, 0x11)}
    assert left(ALL_NONGLOBALS, 0, 0, -1, 1) == {(GLOBAL, 0x10), (GLOBAL, 0x11)}
    assert left(EVERYTHING, 0, 0, -1, 1) == set()


async def idle() -> None:
    await Idle()
