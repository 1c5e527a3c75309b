"""A policy or a program of a user's own that is wrong where Python lets it pass: one line, exit code 2."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import emulator
import scenarios
from emulator.kernel.policy import Policy
from emulator.policies.catalogue import POLICIES
from scenarios.mistakes import MISTAKES
from scenarios.subjects.await_reader import forgotten
from scenarios.subjects.policies import policy_factory

Migrc = Callable[..., int]

HEAD = """
from emulator.hardware.operations import AtomicAdd, BeginLoad, EndLoad, FindVma, Load, Series, Store
from emulator.kernel.policy import Policy
from emulator.kernel.rmap import try_to_unmap_flush
from emulator.kernel.user import user_read


class Luf(Policy):
    name = "luf"
"""
LINE = HEAD.count("\n") + 1  # of the first line behind it

TEST = """
from emulator.hardware.operations import Load, Store
from emulator.machine.litmus import Expectation, Litmus
from emulator.kernel.user import user_read


def setup(start):
    start.area(0x10, 1)
    start.page(0x10)


async def program(cpu):
    {}


LITMUS = Litmus("own", "?", (program,), setup, (Expectation("immediate", "Never", "Never", "Never"),))
"""


@pytest.fixture
def told(folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the one line of a wrong command says."""

    def run(*arguments: str) -> str:
        assert migrc(*arguments) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err.count("\n") == 1 and err.startswith("migrc: error: "), err
        return err

    return run


def policy(folder: Path, body: str, name: str = "luf.py") -> str:
    (folder / name).write_text(HEAD + "\n".join("    " + line if line else "" for line in body.split("\n")))
    return f"{name}:Luf"


@pytest.mark.parametrize("name", ["luf:Luf", "luf.py:Luf", "./luf.py:Luf", "{folder}/luf.py:Luf"])
def test_a_policy_is_found_by_module_or_by_path(
    name: str, folder: Path, migrc: Migrc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "luf", raising=False)
    policy(folder, "async def after_unmap(self, cpu, src, dst):\n    await try_to_unmap_flush(cpu)")
    assert (
        migrc(
            "check", "small.py:SB", "--policy", name.format(folder=folder), "--arch", "sc", "--schedules", "9"
        )
        == 0
    )


def test_two_files_of_one_name_are_two_policies(folder: Path) -> None:
    for place in ("one", "two"):
        (folder / place).mkdir()
        policy(folder / place, f"place = {place!r}")
    made = [policy_factory(f"{place}/luf.py:Luf")() for place in ("one", "two")]
    assert [vars(type(one))["place"] for one in made] == ["one", "two"]


def test_a_file_here_hides_no_installed_module(folder: Path, migrc: Migrc) -> None:
    (folder / "ray.py").write_text("raise RuntimeError('not Ray')")
    policy(folder, "pass")
    before = list(sys.path)
    policy_factory("luf:Luf")
    assert sys.path[: len(before)] == before


@pytest.mark.parametrize("name", sorted({**POLICIES, **MISTAKES}.keys()))
def test_everything_that_is_listed_is_found(name: str) -> None:
    assert isinstance(policy_factory(name)(), Policy)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("luf.py:luf", "no class 'luf' there; did you mean Luf?"),
        ("luf:luf", "no class 'luf' there; did you mean Luf?"),
        ("luf.py", "which class of luf.py? known: Abstract, Exits, Luf"),
        ("luf:", "which class of luf? known: Abstract, Exits, Luf"),
        ("luf.py:OBJECT", "OBJECT is a policy object; name its class, Luf"),
        ("luf.py:Other", "Other is a class, not a class derived from Policy"),
        ("luf.py:LIST", "LIST is a list, not a class derived from Policy"),
        ("luf.py:Abstract", "Abstract has no mine"),
        ("luf.py:Needy", "making one raised TypeError: Needy.__init__() missing 1 required"),
        ("luf.py:Raises", f"line {LINE + 13}: making one raised ValueError: no"),
        ("lufs:Luf", "no module named lufs is installed or here"),
        ("lufs.py:Luf", "lufs.py: no such file"),
        ("imediate", "did you mean immediate?"),
        ("mistake:inverted", "no mistake named mistake:inverted"),
        ("migrc:v8", "did you mean migrc:v9?"),
        ("luf.py:Exits", "making one raised SystemExit: 3"),
        (":Luf", "unknown policy ':Luf'"),
        ("", "unknown policy ''"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_name_that_is_no_policy(
    verb: str,
    name: str,
    says: str,
    folder: Path,
    told: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "luf", raising=False)
    policy(folder, "pass\n")
    with (folder / "luf.py").open("a") as file:
        file.write(
            "OBJECT = Luf()\nLIST = [Luf]\nclass Other: pass\nimport abc\n"
            "class Abstract(Policy, abc.ABC):\n    @abc.abstractmethod\n    def mine(self): pass\n"
            "class Needy(Policy):\n    def __init__(self, cap): pass\n"
            "class Raises(Policy):\n    def __init__(self):\n        self.cap = 1\n"
            "        raise ValueError('no')\n"
            "class Exits(Policy):\n    def __init__(self):\n        raise SystemExit(3)\n"
        )
    thing = "tiering" if verb == "run" else "small.py"
    assert says in told(verb, thing, "--policy", name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Luf(:", "luf.py: line 1: SyntaxError: invalid syntax"),
        ("import nothing_of_that_name", "luf.py: line 1: ModuleNotFoundError: No module named"),
        ("def f():\n    return 1 / 0\nf()", "luf.py: line 2: ZeroDivisionError"),
        ("import sys\nsys.exit(3)", "luf.py: line 2: SystemExit: 3"),
        ("x = 1", "luf.py:Luf: no class 'Luf' there; it holds none"),
        ("import broken", "luf.py: broken.py:2: SyntaxError"),
    ],
)
def test_a_file_that_does_not_import(text: str, says: str, folder: Path, told: Callable[..., str]) -> None:
    (folder / "luf.py").write_text(text)
    (folder / "broken.py").write_text("\nx = (")
    assert says in told("check", "small.py", "--policy", "luf.py:Luf")


FORGOTTEN = {
    "an operation": ('Load("x")', "Load"),
    "a kernel function": ("try_to_unmap_flush(cpu)", "try_to_unmap_flush"),
    "a method of its own": ("self._note(cpu)", "self._note"),
    "a hook of the base class": ("super().after_unmap(cpu, src, dst)", "super().after_unmap"),
    "another hook": ("cpu.policy.drain(cpu)", "cpu.policy.drain"),
    "in a test": ('if Load("x"):\n    pass', "Load"),
    "in a comparison": ("while user_read(cpu, 1) != 3:\n    pass", "user_read"),
    "in arithmetic": ("seen = 1 + user_read(cpu, 1)", "user_read"),
    "in a text": ('cpu.count(f"{Load(1)}")', "Load"),
    "as the value that another stores": ('await Store("x", Load("y"))', "Load"),
    "assigned and not looked at": ('seen = Load("x")', "Load"),
    "assigned and looked at": ('seen = Load("x")\nif seen == 1:\n    await Store("y", 1)', "Load"),
    "assigned to two": ('seen, other = Load("x"), await Load("y")\nassert seen < other', "Load"),
    "assigned to an attribute": ('self._seen = Load("x")', "Load"),
    "unpacked": ('first, second = Series((Load("x"), Load("y")))', "Series"),
    "in a lambda": ('read = lambda word: Load(word)\nread("x")', "read"),
    "in a nested helper": ('async def helper():\n    await Load("x")\nhelper()', "helper"),
    "inside a nested helper": ('async def helper():\n    Load("x")\nawait helper()', "Load"),
    "in a comprehension": ('[Load(word) for word in "xy"]', "Load"),
    "in a generator": ('if any(Load(word) for word in "xy"):\n    pass', "Load"),
    "collected and looked at": ('seen = [Load(word) for word in "xy"]\nassert seen[0] == 0', "Load"),
    "behind an and": ('src and Store("x", 1)', "Store"),
    "in one of two": ('await Load("x") if src else Load("y")', "Load"),
    "returned": ('return Load("x")', "Load"),
    "collected and only walked through": (
        "calls = [try_to_unmap_flush(cpu), Load('x')]\nfor call in calls:\n    pass",
        "try_to_unmap_flush",
    ),
    "too weak an await": ("await FindVma(1, 2)[0]", "FindVma"),
    "by a plain function": ('read_twice("x")', "read_twice"),
    "of an import inside": (
        "from emulator.kernel.rmap import try_to_unmap\ntry_to_unmap(cpu, src)",
        "try_to_unmap",
    ),
}

LATER = {"in a lambda": 1, "in a nested helper": 2, "inside a nested helper": 1, "of an import inside": 1}
"""In a later line than the first."""


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_forgotten_await_is_told_with_its_line(what: str, folder: Path, told: Callable[..., str]) -> None:
    text, called = FORGOTTEN[what]
    body = "async def after_unmap(self, cpu, src, dst):\n    pass\n    " + text.replace("\n", "\n    ")
    name = policy(folder, body + "\n\nasync def _note(self, cpu):\n    await Load('x')\n")
    with (folder / "luf.py").open("a") as file:
        file.write("\ndef read_twice(word):\n    return Series((Load(word), Load(word)))\n")
    line = LINE + 2 + LATER.get(what, 0)
    said = told("check", "small.py", "--policy", name)
    assert f"luf.py:{line}: {called}(...) is never awaited; put await in front of it" in said


HONEST = """
RESET = Store("x", 0)


def read_all(words):
    return Series(tuple(Load(word) for word in words))


async def twice(operation):
    return await operation, await operation


class Luf(Policy):
    async def after_unmap(self, cpu, src, dst):
        await RESET
        one = Load("x")
        values = [Load(word) for word in "xy"]
        assert await one == await Load("x") and (await FindVma(1, 2)) is not None
        await Series(tuple(values))
        for each in values:
            await each
        seen, other = await Series((Load("x"), Load("y")))
        handle = await BeginLoad(Load("x"))
        await EndLoad(handle)
        pick = Load("x") if seen else Load("y")
        await pick
        await (Load("x") if other else Load("y"))
        read = lambda word: Load(word)
        await read("x")
        first, *_ = await read_all("xy")
        await twice(Load("x"))
        self._later = Load("x")
        await self._flush_if(cpu)
        await self.flush_now(cpu)
        names = sorted("xy", key=lambda word: word)
        cpu.count("litmus_honest", len(names))

    async def _flush_if(self, cpu):
        await self._later
        return await super().after_flush(cpu)

    async def flush_now(self, cpu):
        await try_to_unmap_flush(cpu)

    def plain(self):
        return 3
"""


def test_what_is_awaited_later_is_no_mistake(folder: Path, migrc: Migrc) -> None:
    (folder / "luf.py").write_text(HEAD + "    pass\n" + HONEST)
    assert migrc("check", "small.py:SB", "--policy", "luf.py:Luf", "--arch", "sc", "--schedules", "5") == 0


def test_no_shipped_program_forgets_an_await() -> None:
    for root in (emulator, scenarios):
        for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            if not found.name.endswith("__main__"):
                assert not list(forgotten(importlib.import_module(found.name))), found.name


HOOKS = {
    "misspelt": (
        "async def before_handed_outt(self, cpu, pfn, order):\n    pass",
        "did you mean before_handed_out?",
    ),
    "in other letters": ("async def afterUnmap(self, cpu, src, dst):\n    pass", "did you mean after_unmap?"),
    "private": ("async def _after_unmap(self, cpu, src, dst):\n    pass", "did you mean after_unmap?"),
    "that there is not": ("async def before_alloc(self, cpu, node):\n    pass", "before_alloc is no hook"),
    "not async": (
        "def after_unmap(self, cpu, src, dst):\n    pass",
        "expects async def after_unmap(self, cpu",
    ),
    "async": (
        "async def batch_for(self, task, pte):\n    pass",
        "batch_for is async; the kernel expects def",
    ),
    "a generator": ("async def drain(self, cpu):\n    yield 1", "a generator (it has a yield)"),
    "with too few": (
        "async def before_handed_out(self, cpu, pfn):\n    pass",
        "takes (self, cpu, pfn); the kernel",
    ),
    "without self": (
        "async def drain(cpu):\n    pass",
        "takes (cpu); the kernel expects async def drain(self",
    ),
    "with too many": ("async def drain(self, cpu, node):\n    pass", "takes (self, cpu, node); the kernel"),
    "without an answer": (
        "async def extra_references(self, cpu, src, dst):\n    await Load('x')",
        "the hook extra_references returns nothing; the kernel expects int",
    ),
    "in another order": (
        "async def after_unmap(self, cpu, dst, src):\n    pass",
        "the hook after_unmap names cpu, dst, src; they are cpu, src, dst",
    ),
    "a property": (
        "@property\nasync def drain(self, cpu):\n    pass",
        "drain is a property; the kernel expects none",
    ),
    "a number among words": ("words_at_rest = (3,)", "words_at_rest has 3 in it; the kernel expects str"),
    "a name for a flag": (
        "page_flags = ('PG_X',)",
        "page_flags has 'PG_X' in it; the kernel expects PageFlag",
    ),
    "a value": ("drain = 3", "drain is 3; the kernel expects the hook drain(self, cpu"),
    "outside": (
        "pass\n\nasync def helper():\n    async def drain(self, cpu):\n        pass",
        "outside of its class",
    ),
}
OF_THE_CLASS = ("a value", "a property", "a number among words", "a name for a flag")


@pytest.mark.parametrize("what", HOOKS)
def test_a_hook_that_is_none_is_told_with_its_line(what: str, folder: Path, told: Callable[..., str]) -> None:
    body, says = HOOKS[what]
    said = told("check", "small.py", "--policy", policy(folder, body))
    assert says in said
    line = {"outside": LINE + 3, **dict.fromkeys(OF_THE_CLASS, 8)}.get(what, LINE)
    assert f"luf.py:{line}: " in said


def test_a_misspelt_setting_is_told(folder: Path, told: Callable[..., str]) -> None:
    said = told("check", "small.py", "--policy", policy(folder, "frees_before_flsh = True"))
    assert "Luf.frees_before_flsh means nothing; did you mean frees_before_flush?" in said
    said = told("check", "small.py", "--policy", policy(folder, "frees_before_flush = 'no'", "luf2.py"))
    assert "frees_before_flush is 'no'; the kernel expects a bool" in said


def test_what_a_policy_prints_is_not_in_the_document(
    folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    name = policy(folder, "print('made')\ndef __init__(self):\n    print('here')")
    assert migrc("check", "small.py:SB", "--policy", name, "--arch", "sc", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["policy"] == name
    assert err.startswith("made\nhere\n")


AWAITS = {
    "asyncio.sleep(1)": "RuntimeError: no running event loop",
    "asyncio.sleep(0)": "NotAnOperation: awaits None; a program awaits operations",
    "3": "int can't be used in 'await' expression; a program awaits operations",
    "Series((3,))": "NotAnOperation: awaits 3 as member 1 of 1 of a Series; a program awaits",
    "later()": "NotAnOperation: awaits 'now'; a program awaits operations",
}


@pytest.mark.parametrize("awaited", AWAITS)
def test_what_no_engine_can_carry_out_is_told_where_it_is_awaited(
    awaited: str, folder: Path, told: Callable[..., str]
) -> None:
    helper = "import asyncio\nfrom emulator.hardware.operations import Series\n\n\nclass later:\n"
    helper += "    def __await__(self):\n        yield 'now'\n\n\n"
    text = helper + TEST.format(f"await {awaited}")
    (folder / "own.py").write_text(text)
    line = next(n for n, one in enumerate(text.splitlines(), 1) if one == f"    await {awaited}")
    said = told("check", "own.py", "--arch", "sc")
    assert AWAITS[awaited] in said and ("later" in awaited or f"(own.py:{line} in program)" in said)


REPLAY = ("replay", "0*3", "--litmus", "own.py", "--policy", "immediate")


@pytest.mark.parametrize("verb", [("check", "own.py"), REPLAY])
def test_a_coroutine_that_no_reader_finds_is_told_when_it_is_dropped(
    verb: tuple[str, ...], folder: Path, told: Callable[..., str]
) -> None:
    body = "known = {'read': user_read}\n    known['read'](cpu, 0x10)\n    await Load('x')"
    (folder / "own.py").write_text(TEST.format(body))
    said = told(*verb, "--arch", "sc")
    assert "ForgottenAwait: user_read() is called and never awaited" in said
    assert "(own.py:14 in program)" in said


@pytest.mark.parametrize("keeps", ["self.later.append(note)", "self.later.append({1: (note,)})"])
def test_a_coroutine_that_is_kept_and_never_awaited_is_told_at_the_end(
    keeps: str, folder: Path, told: Callable[..., str]
) -> None:
    body = "later = []\nasync def after_unmap(self, cpu, src, dst):\n    self.later = []\n"
    body += "    note = self._note(cpu)\n    " + keeps + "\nasync def _note(self, cpu):\n    await Load('x')"
    said = told("check", "deferred-copy", "--arch", "sc", "--policy", policy(folder, body))
    assert "Luf._note() is called and never awaited; put await in front of it" in said
    assert f"(luf.py:{LINE + 3} in after_unmap)" in said


def test_a_rule_may_break_before_the_first_operation(
    folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "from emulator.machine.litmus import Forbidden\n    raise Forbidden('mine', 'at once')"
    (folder / "own.py").write_text(TEST.format(body + "\n    await Load('x')"))
    assert migrc("check", "own.py", "--arch", "sc") == 1
    assert "breaks: mine: at once" in capsys.readouterr().out


def test_programs_that_are_none_are_told(folder: Path, told: Callable[..., str]) -> None:
    text = TEST.format("await Load('x')")
    for old, new, says in (
        ("async def program(cpu)", "def program(cpu)", "SyntaxError"),
        (
            "async def program(cpu)",
            "async def program()",
            "own.py:12: the program program takes (); it is called",
        ),
        (
            "def setup(start)",
            "async def setup(start)",
            "own.py:7: the setup setup must be a function made with def",
        ),
        ("await Load('x')", "Load('x')", "own.py:13: Load(...) is never awaited"),
    ):
        (folder / f"own{len(says)}.py").write_text(text.replace(old, new))
        assert says.replace("own.py", f"own{len(says)}.py") in told("check", f"own{len(says)}.py")


def test_what_memory_cannot_carry_out_is_told_with_the_operation(
    folder: Path, told: Callable[..., str]
) -> None:
    body = "async def after_unmap(self, cpu, src, dst):\n    await AtomicAdd('x', None)"
    said = told("check", "deferred-copy", "--arch", "sc", "--policy", policy(folder, body))
    assert "CPU 0: TypeError: " in said and ", asked for by AtomicAdd(" in said


def test_what_a_policy_does_wrong_inside_the_kernel_names_its_own_line(
    folder: Path, told: Callable[..., str]
) -> None:
    name = policy(folder, "async def drain(self, cpu):\n    await user_read(None, 1)")
    assert f"(luf.py:{LINE + 1} in drain)" in told("check", "small.py", "--policy", name)
