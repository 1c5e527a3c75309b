"""Options and arguments that several verbs have, each described once.

What can be seen in the option's value alone is refused here, in one line.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from actors.address import PLACEMENTS, Placement, split_address
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.versions import VERSIONS
from emulator.policies.catalogue import canonical
from scenarios.report.console import DOCUMENT
from scenarios.subjects.mmus import mmu_class
from scenarios.subjects.policies import policy_factory
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import MAX_CPUS, MAX_SEED, MAX_TIMED_CPUS

DEFAULT_CPUS: Final = 4
MAX_WORKERS: Final = 64
COUNT: Final = click.IntRange(1, 10**9)
FILE: Final = click.Path(path_type=Path)
_SEED: Final = click.IntRange(0, MAX_SEED)

LEAST_MEMORY: Final = 128 << 20
MOST_MEMORY: Final = 1 << 50
_BYTES: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([KMGTkmgt])(?:i?[Bb])?")

Option = Callable[[Any], Any]
Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _offer(names: Callable[[], Mapping[str, str]]) -> Offer:
    """For `shell_complete`: the names that begin as typed, with what they are."""

    def offered(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        return [CompletionItem(name, help=text) for name, text in names().items() if name.startswith(typed)]

    return offered


def _listed(*kinds: str) -> Offer:
    """Names that `migrc list` has of these kinds."""

    def names() -> Mapping[str, str]:
        # What there is takes a while to import, and is asked for by a shell only.
        from scenarios.verbs.offers import there_is

        found = there_is()
        return {name: text for kind in kinds for name, text in found[kind].items()}

    return _offer(names)


def _keys() -> Mapping[str, str]:
    """Keys of the workload that has been typed, else of `tiering`, as `--set` has them."""
    from scenarios.verbs.offers import flat
    from scenarios.workloads.workload_file import load_workload

    context = click.get_current_context(silent=True)
    name = (context.params.get("scenario") if context else None) or "tiering"
    try:
        settings = load_workload(name).settings_used()
    except UsageProblem:
        settings = load_workload("tiering").settings_used()
    return {f"{key}=": str(value) for key, value in flat(settings).items() if "." in key}


scenarios = _listed("scenarios")
tests = _listed("litmus")
_policies = _listed("policies", "mistakes")
_mmus = _listed("mmus")


class Seconds(click.FloatRange):
    """A time that is more than 0 and ends."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. click's own error if it is none."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is no time; a number of seconds", param, ctx)
        return seconds


def each_once(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """A value that is given twice is a mistake, two names of one policy too."""
    for number, value in enumerate(values):
        if canonical(value) in map(canonical, values[:number]):
            raise UsageProblem(f"{option.opts[0]}: {value} is given twice; each once")
    return values


def _known(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for name in values:
        policy_factory(name)
    return each_once(context, option, values)


def _address(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise UsageProblem("--address: it is empty; HOST:PORT of a Ray cluster, or leave it out")
    if value is not None:
        try:
            split_address(value)
        except ValueError as problem:
            raise UsageProblem(f"--address: {problem}") from None
    return value


def _bytes(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A number, and K, M, G or T (of 1024 each) behind it."""
    if value is None:
        return None
    found = _BYTES.fullmatch(value.strip())
    amount = int(float(found[1]) * 1024 ** (1 + "KMGT".index(found[2].upper()))) if found else 0
    if not LEAST_MEMORY <= amount <= MOST_MEMORY:
        raise UsageProblem(f"--memory: {value!r}; an amount such as 512M or 4G, from 128M to 1024T")
    return amount


def policies(text: str, default: Sequence[str] = ()) -> Option:
    """`--policy`, repeatable."""
    return click.option(
        "--policy",
        "policies",
        multiple=True,
        default=default,
        show_default=bool(default),
        metavar="P",
        callback=_known,
        shell_complete=_policies,
        help=f"{text} See `migrc list`.",
    )


def _mmu(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str | None:
    for value in values:
        mmu_class(value)
    if len(values) > 1:
        # --policy and --arch may be repeated: do not drop all but the last in silence.
        raise UsageProblem(f"--mmu: {' and '.join(values)}; one at a time")
    return values[0] if values else None


mmu = click.option(
    "--mmu",
    multiple=True,
    metavar="M",
    callback=_mmu,
    shell_complete=_mmus,
    help="How flushes are carried out.  [default: x86, or what a litmus test names]  See `migrc list`.",
)


def archs(text: str) -> Option:
    """`--arch`, repeatable: every architecture."""
    return click.option(
        "--arch",
        "archs",
        multiple=True,
        type=click.Choice(list(ARCHITECTURES)),
        callback=each_once,
        help=text,
    )


def heed(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`--rule` and `--ignore`, repeatable: which broken rules count."""
    only = "Only this rule counts; repeatable, wildcards welcome."
    ignore = "This rule does not count, and runs go on behind it; repeatable, wildcards welcome."
    with_rule = click.option("--rule", "rules", multiple=True, metavar="RULE", help=only)
    with_ignore = click.option("--ignore", "ignored", multiple=True, metavar="RULE", help=ignore)
    return with_rule(with_ignore(verb))


def seed(text: str = "Of all that is random.") -> Option:
    """`--seed`, 0 if not given."""
    return click.option("--seed", type=_SEED, default=0, show_default=True, help=text)


def seconds(text: str, default: float | None = None) -> Option:
    """`--seconds`."""
    return click.option("--seconds", type=Seconds(), default=default, show_default=True, help=text)


def workers(text: str) -> Option:
    """`--workers`: processes on this machine."""
    return click.option(
        "--workers", type=click.IntRange(1, MAX_WORKERS), default=1, show_default=True, help=text
    )


def cpus(most: int, text: str, default: int | None = DEFAULT_CPUS) -> Option:
    """`--cpus`."""
    return click.option("--cpus", type=click.IntRange(1, most), default=default, show_default=True, help=text)


arch = click.option(
    "--arch",
    type=click.Choice(("sc", "x86", "arm64")),
    default="x86",
    show_default=True,
    help="Which effects may overtake which, and so which barriers the kernel needs.",
)
no_seed = click.option(
    "--seed", type=_SEED, expose_value=False, help="Accepted as by every verb; nothing here is random."
)


trust = click.option(
    "--trust",
    is_flag=True,
    help="Import and run code that the file names: a litmus test, policy or mmu of somebody's own.",
)


def check_trust(file: Path, subject: Subject, trusted: bool) -> None:
    """A file from a stranger is data: UsageProblem if it names code of its own and that is not trusted."""
    if subject.own_code and not trusted:
        named = " and ".join(subject.own_code)
        raise UsageProblem(f"{file}: it would import and run {named}; --trust if that is your own code")


def _apart(context: click.Context, _option: click.Parameter, value: bool) -> bool:
    """What a policy or program prints is no part of the document: it goes to standard error."""
    if value:
        context.meta[DOCUMENT] = sys.stdout
        context.with_resource(redirect_stdout(sys.stderr))
    return value


json_ = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_apart,
    help="Print one JSON document instead of text.",
)
quiet = click.option("--quiet", is_flag=True, help="No progress on standard error.")
_VERSION: Final = "scenarios.version"


def _kernel(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """`--kernel` is short for a `--set`, before or after all others."""
    if value is not None:
        setting = context.meta[_VERSION] = f'kernel.version="{value}"'
        if "overrides" in context.params:
            context.params["overrides"] += (setting,)


def _set(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return (*values, context.meta[_VERSION]) if _VERSION in context.meta else values


def overrides(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`--set`, repeatable, and `--kernel`."""
    version = click.option(
        "--kernel",
        type=click.Choice(tuple(VERSIONS)),
        expose_value=False,
        callback=_kernel,
        help="Which version of Linux the kernel does as (kernel.version of the workload).",
    )
    settings = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        callback=_set,
        shell_complete=_offer(_keys),
        help="Replace a value of the workload; repeatable.",
    )
    return settings(version(verb))


address = click.option(
    "--address",
    metavar="HOST:PORT",
    callback=_address,
    help="Use this Ray cluster instead of starting Ray here.",
)
placement = click.option(
    "--placement",
    type=click.Choice(PLACEMENTS),
    help="With --address, simulated CPUs: neighbours on different nodes, all on this node, or in "
    "blocks, as if a node were a socket.  [default: spread]",
)


def placed(placement: Placement | None, address: str | None) -> Placement:
    """What `--placement` says. UsageProblem if there is nothing to be placed on."""
    if placement is not None and address is None:
        raise UsageProblem("--placement: only with --address, which has nodes; leave it out")
    return placement or PLACEMENTS[0]


memory = click.option(
    "--memory",
    metavar="SIZE",
    callback=_bytes,
    help="Searches of every interleaving end, not complete, before they have taken so much (512M, 4G).",
)
trace = click.option("--trace", type=FILE, metavar="FILE", help="For replay: the trace to replay.")
every = click.option("--all", "every", is_flag=True, help="Every shipped litmus test.")

MOST_CPUS: Final = max(MAX_CPUS, MAX_TIMED_CPUS)
