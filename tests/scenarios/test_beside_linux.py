"""The emulator beside recorded cases: what is run and counted, what counts as equal, and what is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.linux import agreement
from scenarios.linux.agreement import Outcome, Verdict, verdict
from scenarios.linux.cases import COLUMNS, Case, Counted, parse_recording
from scenarios.linux.differences import KNOWN, Difference
from scenarios.linux.operation import Call, find
from scenarios.linux.operations import CALLS
from scenarios.linux.testbed import CONFIGURATIONS, Testbed

Migrc = Callable[..., int]

NAMES = "\t".join(COLUMNS)
READ_ONLY = (
    'mprotect_ro_8\tk0\t{"8":1}\t0\t-\t{"8":1}\t-\t3/3',
    'mprotect_ro_8\ts1\t{"8":1}\t1\t{"1":{"8":1}}\t{"8":1}\t-\t3/3',
    'mprotect_ro_8\ts3\t{"8":1}\t1\t{"1":{"8":1},"2":{"8":1},"3":{"8":1}}\t{"8":1}\t-\t3/3',
    'mprotect_ro_8\tl3\t{"8":1}\t1\t-\t{"8":1}\t{"wake1":1,"wake2":1,"wake3":1}\t3/3',
    'mprotect_ro_8\tmix\t{"8":1}\t1\t{"1":{"8":1}}\t{"8":1}\t{"op0":7,"wake2":1,"wake3":1}\t3/3',
)
NOTHING_HAPPENS = Counted({}, 0, {}, {}, {})


def case(line: str) -> Case:
    return parse_recording(f"{NAMES}\n{line}", "f").cases[0]


def judged(line: str, kernel: str = "6.12", pcid: bool = True) -> Verdict:
    return verdict(case(line), CALLS, kernel, pcid)


def counted(operation: str, configuration: str, kernel: str = "6.12", pcid: bool = True) -> Counted:
    found = find(operation, CALLS)
    assert found is not None
    return Testbed(found, configuration, kernel, pcid).run()


@pytest.mark.parametrize("line", READ_ONLY)
def test_every_configuration_of_an_operation_is_as_recorded(line: str) -> None:
    assert judged(line).outcome is Outcome.EQUAL


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_where_nothing_happens_nothing_is_counted(configuration: str) -> None:
    assert counted("nothing", configuration) == NOTHING_HAPPENS


def test_without_address_space_numbers_a_switch_flushes_whatever_was_done() -> None:
    # CPU 2 ran another process; the lazy CPU 3 comes back to the mm that it never left.
    assert counted("nothing", "mix", pcid=False) == NOTHING_HAPPENS._replace(switch={"wake2": 1})
    assert counted("nothing", "l3", pcid=False) == NOTHING_HAPPENS


def test_the_pages_are_those_of_the_name() -> None:
    assert counted("mprotect_ro_33", "s1").recv == {"1": {"33": 1}}
    assert counted("mprotect_ro_34", "s1").recv == {"1": {"full": 1}}
    assert find("mprotect_ro_0", CALLS) is None and find("mprotect_ro_", CALLS) is None


def test_a_version_is_a_profile_of_the_machine() -> None:
    batched = counted("move_4", "s1", "6.6")
    assert batched.calls == {"batch": 1} and batched.recv == {"1": {"full": 1}}
    each = counted("move_4", "s1", "6.1")
    assert each.calls == {"1": 4} and each.recv == {"1": {"1": 4}}


def test_reclaim_frees_in_batches_since_v6_10() -> None:
    assert counted("pageout_file_clean_40", "s1", "6.12").calls == {"batch": 2}
    assert counted("pageout_file_clean_40", "s1", "6.6").calls["batch"] == 1


@pytest.mark.parametrize(("configuration", "cpus"), [("s2", ["1", "2"]), ("s1", ["1"])])
def test_as_many_threads_spin_as_the_configuration_says(configuration: str, cpus: list[str]) -> None:
    assert [*counted("mprotect_ro_1", configuration).recv] == cpus


def test_as_many_threads_sleep_as_the_configuration_says() -> None:
    assert counted("mprotect_ro_1", "l2").switch == {"wake1": 1, "wake2": 1}


def test_userfaultfd_gives_the_write_permission_back_since_v6_3() -> None:
    assert counted("uffd_unwp_8", "k0", "6.6").calls == {"8": 1}
    assert counted("uffd_unwp_8", "k0", "6.1") == NOTHING_HAPPENS


def test_another_process_may_call() -> None:
    remote = counted("move_remote_4", "s1")
    assert remote.recv == {"1": {"full": 1}} and not remote.local
    assert counted("move_remote_4", "k0").calls == {"1": 4}


def test_a_process_elsewhere_is_interrupted_too() -> None:
    assert counted("move_shared_4", "s1").recv == {"1": {"full": 1}, "3": {"full": 1}}


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("calls", '{"8+ft":1}'),
        ("send", "2"),
        ("recv", '{"1":{"full":1}}'),
        ("local", '{"full":1}'),
        ("switch", '{"wake1":1}'),
    ],
)
def test_a_difference_in_any_column_is_one(column: str, text: str) -> None:
    cells = READ_ONLY[1].split("\t")
    cells[COLUMNS.index(column)] = text
    found = judged("\t".join(cells))
    assert (found.outcome, found.differs, found.expected) == (Outcome.DIFFERENT, (column,), False)
    cells[COLUMNS.index("agreed")] = "1/2"
    assert judged("\t".join(cells)).outcome is Outcome.UNSTEADY


def test_what_is_known_to_differ_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Difference("for a reason", ("mprotect_ro_*",), ("s1",), ("6.12",))
    monkeypatch.setattr(agreement, "KNOWN", (known,))
    gone = judged(READ_ONLY[1])
    assert (gone.outcome, gone.expected, gone.reason) == (Outcome.GONE, False, "for a reason")
    assert judged(READ_ONLY[2]).outcome is Outcome.EQUAL
    monkeypatch.setattr(agreement, "KNOWN", (known._replace(pcid=False),))
    assert judged(READ_ONLY[1]).outcome is Outcome.EQUAL
    assert judged(READ_ONLY[1], pcid=False).outcome is Outcome.GONE
    monkeypatch.setattr(agreement, "KNOWN", (known,))
    assert judged(READ_ONLY[1], "6.1").outcome is Outcome.EQUAL
    differs = judged(READ_ONLY[1].replace("\t1\t", "\t2\t"))
    assert (differs.outcome, differs.expected) == (Outcome.KNOWN, True)


def test_what_has_no_program_is_not_modelled() -> None:
    for line in ("juggle_8\tk0\t-\t0\t-\t-\t-\t1/1", "nothing\ts7\t-\t0\t-\t-\t-\t1/1"):
        found = judged(line)
        assert found.outcome is Outcome.NOT_MODELLED and found.expected and found.ours is None
    assert "s7" in found.reason


def test_a_program_that_gets_nowhere_is_an_error() -> None:
    async def waits(cpu: object, area: object) -> None:
        from emulator.hardware.operations import WaitFor

        await WaitFor("never", 1)

    found = find("stuck", {"stuck": Call("stuck", waits)})
    assert found is not None
    with pytest.raises(RuntimeError, match="stuck does not come to its end"):
        Testbed(found, "k0", "6.12", True).run()


@pytest.mark.parametrize(
    ("name", "call", "kind", "number"),
    [
        ("munmap_8", "munmap", "", 8),
        ("munmap_tmpfs_8", "munmap", "tmpfs", 8),
        ("thp_munmap", "munmap", "thp", 1),
        ("thp_munmap_part", "munmap", "thp_part", 1),
        ("thp_munmap_unaligned_3", "munmap", "thp_unaligned", 3),
        ("mprotect_ro_none_8", "mprotect_ro", "none", 8),
        ("mprotect_file_ro_8", "mprotect_ro", "dirty", 8),
        ("dontneed_locked_8", "dontneed_locked", "", 8),
        ("msync_8", "msync", "dirty", 8),
    ],
)
def test_a_name_says_what_is_called_on_what(name: str, call: str, kind: str, number: int) -> None:
    found = find(name, CALLS)
    assert found is not None and not found.moved
    assert (found.call.name, found.number) == (call, number) and kind in found.kind.names
    after = find(f"moved_then_{name}", CALLS)
    assert after is None or after.moved


def test_who_scans_may_be_any_thread_that_runs() -> None:
    scanned = '{"8":1}\t1\t{"0":{"8":1}}\t{"8":1}\t-\t3/3'
    assert judged(f"numa_scan_tmpfs_8\ts1\t{scanned}").outcome is Outcome.EQUAL
    assert judged(f"numa_scan_tmpfs_8\tl1\t{scanned}").differs == ("recv", "switch")
    assert judged(f"numa_scan_tmpfs_8\ts1\t{scanned}", "6.1").outcome is Outcome.DIFFERENT
    assert counted("numa_scan_8", "k0") == NOTHING_HAPPENS


@pytest.mark.parametrize(("processes", "flushes"), [(6, 0), (7, 70)])
def test_address_space_numbers_are_enough_for_six_processes(processes: int, flushes: int) -> None:
    ours = counted(f"switch_{processes}", "on1")
    assert ours == NOTHING_HAPPENS._replace(switch={"op1": flushes} if flushes else {})
    line = f'switch_{processes}\ton1\t-\t0\t-\t-\t{{"op1":229}}\t1/1'
    assert judged(line).outcome is (Outcome.EQUAL if flushes else Outcome.DIFFERENT)
    assert counted("switch_2", "on1", pcid=False).switch


def test_known_differences_are_of_operations_that_there_are() -> None:
    for one in KNOWN:
        assert one.configurations and set(one.configurations) <= set(CONFIGURATIONS)
        for name in one.operations:
            assert find(re.sub(r"\[.*|\*", "8", name), CALLS), name


# --- the verb --------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "cases.tsv"
    lines = [*READ_ONLY, "juggle_8\tk0\t-\t0\t-\t-\t-\t3/3"]
    path.write_text("\n".join(["# kernel: 6.12.48-amd64", "# pcid: yes", NAMES, *lines, ""]))
    return path


def test_the_verb_tells_what_is_equal(
    recorded: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc("compare", "linux", "--cases", str(recorded), "--quiet") == 0
    out = capsys.readouterr().out
    assert out.startswith("kernel = 6.12, with PCIDs, beside Linux 6.12.48-amd64")
    assert "6 cases: 5 equal, 0 different, 1 not modelled; 0 not as expected" in out
    assert "no program for juggle_8" in out


def test_the_verb_fails_for_what_differs(
    recorded: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.write_text(recorded.read_text().replace('{"8":1}\t0\t', '{"8":2}\t0\t'))
    assert migrc("compare", "linux", "--cases", str(recorded), "--quiet") == 1
    out = capsys.readouterr().out
    assert 'mprotect_ro_8 k0: different\n  calls   {"8":1}   Linux {"8":2}' in out
    assert "4 equal, 1 different, 1 not modelled; 1 not as expected" in out


def test_the_verb_as_json(recorded: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("--operation", "mprotect_*", "--json", "--quiet")
    assert migrc("compare", "linux", "--kernel", "6.12", "--cases", str(recorded), *chosen) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kernel"] == "6.12" and document["pcid"] is True
    assert document["summary"]["equal"] == len(document["cases"]) == 5
    assert document["cases"][1]["ours"]["recv"] == {"1": {"8": 1}}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cases", "FILE", "--kernel", "6.1"), "--kernel 6.1: FILE is of 6.12.48-amd64"),
        (("--cases", "FILE", "--operation", "munmapp*"), "--operation munmapp*: in no case of FILE"),
        (("--cases", "missing.tsv"), "missing.tsv: not readable as recorded cases"),
        (("--kernel", "2.6"), "'2.6' is not one of '6.1', '6.6', '6.12'"),
    ],
)
def test_the_verb_refuses_in_one_line(
    options: tuple[str, ...], told: str, recorded: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(recorded) if option == "FILE" else option for option in options]
    assert migrc("compare", "linux", *given) == 2
    err = capsys.readouterr().err
    assert told.replace("FILE", str(recorded)) in err and err.count("\n") == 1


def test_a_kernel_that_is_not_known_is_named(
    recorded: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.write_text(recorded.read_text().replace("6.12.48", "5.4.1"))
    assert migrc("compare", "linux", "--cases", str(recorded)) == 2
    assert "kernel 5.4.1-amd64" in capsys.readouterr().err
