"""A workload file is right, or answered with one line that says where, what is wrong and what is right."""

from pathlib import Path

import pytest

from scenarios.usage import UsageProblem
from scenarios.workloads.settings import Kernel, Memory, Tlb
from scenarios.workloads.workload_file import list_workloads, load_workload

MINIMAL = 'name = "mine"\nkind = "tiering"\n'


def problem_of(name: str | Path, *overrides: str) -> str:
    with pytest.raises(UsageProblem) as caught:
        load_workload(str(name), overrides)
    message = caught.value.format_message()
    assert "\n" not in message
    return message


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_shipped_workloads_load_and_run_on_any_number_of_cpus() -> None:
    shipped = {workload.name: workload for workload in list_workloads()}
    assert {"tiering", "replay"} <= set(shipped)
    for name, workload in shipped.items():
        assert load_workload(name) == workload
        assert workload.description
    for cpus in (1, 4, 16, 64):
        shipped["tiering"].check(cpus)


def test_the_fast_tier_of_tiering_is_smaller_than_its_working_set() -> None:
    tiering = load_workload("tiering")
    assert tiering.threads.table_pages + tiering.threads.heap_pages > tiering.memory.fast_pages


def test_what_a_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    workload = load_workload(str(write(tmp_path, MINIMAL)))
    assert workload.memory == Memory()
    assert workload.tlb == Tlb(l1_entries=64, l1_ways=4, l2_entries=1536, l2_ways=12)
    assert workload.kernel == Kernel()
    assert workload.checks.sample_every == 1000


def test_set_replaces_values_and_leaves_the_rest() -> None:
    workload = load_workload(
        "tiering",
        [
            "memory.fast_pages=2_048",
            "threads.hot_share=1",
            "kernel.migration_entry_ad=false",
            "description=two words",
        ],
    )
    assert workload.memory.fast_pages == 2048
    assert workload.memory.slow_pages == load_workload("tiering").memory.slow_pages
    assert workload.threads.hot_share == 1.0
    assert workload.kernel.migration_entry_ad is False
    assert workload.description == "two words"


def test_the_last_set_of_a_key_counts() -> None:
    assert (
        load_workload("tiering", ["checks.sample_every=5", "checks.sample_every=7"]).checks.sample_every == 7
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("memory.fast_pages=-3", "--set memory.fast_pages: -3 is too small; 64 or more"),
        ("memory.fast_pages=5000000", "--set memory.fast_pages: 5000000 is too large; 4000000 or less"),
        ("memory.fast_pages=64.5", "--set memory.fast_pages: 64.5 is no whole number; such as 64"),
        ("memory.fast_pages=true", "--set memory.fast_pages: True is no whole number; such as 64"),
        ("memory.fast_pages=", "--set memory.fast_pages: '' is no whole number; such as 64"),
        ("threads.hot_share=1.5", "--set threads.hot_share: 1.5 is too large; 1.0 or less"),
        ("threads.hot_share=nan", "--set threads.hot_share: nan is no number; such as 0.5"),
        (
            "kernel.migration_entry_ad=1",
            "--set kernel.migration_entry_ad: 1 is neither true nor false; one of them, without quotes",
        ),
        (
            "memory.fast_pags=128",
            "--set memory.fast_pags: unknown key; "
            "did you mean fast_pages? known: divided_by, fast_pages, min_free_pages, slow_min_free_pages, "
            "slow_pages",
        ),
        ("memory=3", "--set memory: 3 where a section belongs; [memory] with keys"),
        (
            "memory.slow_min_free_pages=2000",
            "--set memory.slow_min_free_pages: 2000 pages of watermark leave too little of 4096 slow pages; "
            "1365 or fewer, or more slow_pages",
        ),
        (
            "kind=tiring",
            "--set kind: 'tiring' is not possible; 'tiering', 'replay', 'xsbench', 'file_reclaim', "
            "'munmap_storm', 'write_syscall' or 'allocation_latency'",
        ),
        (
            "tlb.l2_entries=1000",
            "--set tlb.l2_entries: 1000 entries in 12 ways do not make a power of two of sets; "
            "768 would, or other l2_ways",
        ),
        (
            "tlb.l1_entries=2",
            "--set tlb.l1_entries: 2 entries in 4 ways do not make a power of two of sets; "
            "4 would, or other l1_ways",
        ),
        ("threads.accesses=0", "--set threads.accesses: 0 is too small; 1 or more"),
        ("checks.sample_every=0", "--set checks.sample_every: 0 is too small; 1 or more"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(override: str, message: str) -> None:
    assert problem_of("tiering", override) == message


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["memory.min_free_pages=900"], "memory.min_free_pages"),
        (["threads.heap_pages=100000"], "threads.heap_pages"),
        (["threads.table_pages=0"], "threads.heap_share"),
        (["threads.heap_pages=0"], "threads.heap_share"),
        (["threads.hot_pages=4000"], "threads.hot_pages"),
        (["memory.fast_pages=3000000", "memory.slow_pages=3000000"], "memory.slow_pages"),
        (["replay.writes=true"], "replay"),
    ],
)
def test_values_that_contradict_each_other_are_refused(overrides: list[str], key: str) -> None:
    message = problem_of("tiering", *overrides)
    assert f" {key}: " in message
    assert "; " in message


@pytest.mark.parametrize("override", ["foo", "a.b.c=1", ".x=1", "=1", "name.x=1"])
def test_set_needs_a_section_a_key_and_a_value(override: str) -> None:
    assert problem_of("tiering", override).startswith(f"--set {override}: ")


def test_a_value_cannot_smuggle_in_a_second_key() -> None:
    assert "'64\\nslow_pages = 1'" in problem_of("tiering", "memory.fast_pages=64\nslow_pages = 1")


def test_unknown_scenarios_get_a_suggestion() -> None:
    assert problem_of("teering") == (
        "unknown scenario 'teering'; "
        f"did you mean tiering? known: {', '.join(one.name for one in list_workloads())}, "
        "or the path of a .toml file"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "[memory]\nfast_pages = 12\n", "memory.fast_pages: 12 is too small; 64 or more"),
        (MINIMAL + "[memry]\nfast_pages = 12\n", "memry: unknown key; did you mean memory? known: "),
        ('kind = "tiering"\n', "name: missing; every workload has it"),
        ("name = 3\n", 'name: 3 is no text; such as "name" (and 1 more)'),
        ("name = \n", "not readable as TOML: "),
        (b'name = "\xff"\n', "not readable as TOML: "),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "not readable as TOML: "),
        ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    assert problem_of(path).startswith(f"{path}: {message}")


@pytest.mark.parametrize("name", ["absent.toml", "/dev/zero", ".", "./a\0b"])
def test_what_is_no_file_is_refused(name: str) -> None:
    assert "no such file" in problem_of(name) or "unknown scenario" in problem_of(name)


def test_a_fast_tier_too_small_for_the_cpus_does_not_boot() -> None:
    workload = load_workload("tiering", ["memory.fast_pages=256", "memory.min_free_pages=16"])
    workload.check(16)
    with pytest.raises(
        UsageProblem, match=r"^tiering: memory.fast_pages: 256 pages are too few to boot 17 CPUs"
    ):
        workload.check(17)


def test_every_process_needs_a_thread() -> None:
    workload = load_workload("tiering", ["threads.processes=3"])
    workload.check(3)
    with pytest.raises(UsageProblem, match=r"threads.processes: 3 processes need a thread each"):
        workload.check(2)


def test_a_replay_takes_its_accesses_from_the_trace_only() -> None:
    assert "threads.accesses: a replay takes" in problem_of("replay", "threads.accesses=3")


def test_the_trace_comes_from_the_option_or_stands_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "mine"\nkind = "replay"\n[replay]\ntrace = "own.trace"\n')
    own, other = tmp_path / "own.trace", tmp_path / "other.trace"
    workload = load_workload(str(path))
    with pytest.raises(UsageProblem, match=r"replay.trace: .*own.trace: no such file"):
        workload.trace_file(None)
    own.touch()
    other.touch()
    assert workload.trace_file(None) == own
    assert workload.trace_file(other) == other
    with pytest.raises(UsageProblem, match=r"^--trace: .*gone: no such file"):
        workload.trace_file(tmp_path / "gone")


def test_a_trace_is_asked_for_where_there_is_none_and_refused_where_it_has_no_use(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"replay.trace: no trace to replay; .*--trace FILE"):
        load_workload(str(write(tmp_path, 'name = "mine"\nkind = "replay"\n'))).trace_file(None)
    assert load_workload("tiering").trace_file(None) is None
    with pytest.raises(UsageProblem, match=r"--trace: scenario tiering replays no trace"):
        load_workload("tiering").trace_file(tmp_path)


LIVE = (
    MINIMAL
    + "[threads]\naccesses = 9000\n[live]\nscale = 2\nthreads.heap_pages = 40\nkernel.hpage_order = 0\n"
)


def test_what_is_set_for_live_runs_counts_there_only(tmp_path: Path) -> None:
    path = str(write(tmp_path, LIVE))
    timed, live = load_workload(path), load_workload(path, live=True)
    assert (timed.threads.accesses, timed.threads.heap_pages, timed.memory.divided_by) == (9000, 512, 1)
    assert (live.threads.accesses, live.threads.heap_pages, live.memory.divided_by) == (4500, 20, 2)
    assert timed.live_settings == {}
    assert live.live_settings == {"scale": 2, "threads.heap_pages": 40, "kernel.hpage_order": 0}
    assert load_workload("tiering", live=True).live_settings == {}


def test_set_goes_before_what_is_set_for_live_runs(tmp_path: Path) -> None:
    path = str(write(tmp_path, LIVE))
    live = load_workload(path, ["threads.heap_pages=60", "scale=3"], live=True)
    assert (live.threads.accesses, live.threads.heap_pages) == (3000, 20)
    assert live.live_settings == {"kernel.hpage_order": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("live = 3\n", "live: 3 where a section belongs; [live] with keys"),
        ("[live]\nname = 'other'\n", "live.name: not possible here; scale, or section.key"),
        ("[live.name]\nx = 1\n", "live.name: not possible here; scale, or section.key"),
        ("[live.scale]\nx = 1\n", "[live]: scale: {'x': 1} is no whole number; such as 64"),
        ("[live]\nscale = 0\n", "[live]: scale: 0 is too small; 1 or more"),
        (
            "[live.threads]\nheap_pags = 1\n",
            "[live]: threads.heap_pags: unknown key; did you mean heap_pages? known: ",
        ),
        ("[live.threads]\nheap_pages = -1\n", "[live]: threads.heap_pages: -1 is too small; 0 or more"),
        ("[live.thread]\nheap_pages = 1\n", "[live]: thread: unknown key; did you mean threads?"),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_what_is_wrong_for_live_runs_is_said_at_once(
    tmp_path: Path, text: str, message: str, live: bool
) -> None:
    path = write(tmp_path, text + MINIMAL if text.startswith("live") else MINIMAL + text)
    with pytest.raises(UsageProblem) as caught:
        load_workload(str(path), live=live)
    assert caught.value.format_message().startswith(f"{path}: {message}")


def test_set_reaches_no_section_of_live_runs(tmp_path: Path) -> None:
    path = write(tmp_path, LIVE)
    assert problem_of(path, "live.scale=4").startswith("--set live: unknown key")


def test_a_scale_that_leaves_nothing_is_said() -> None:
    assert problem_of("tiering", "scale=65536").startswith("tiering: memory.slow_pages: 1 is too small")
