"""The verb `migrc functions`: the kernel's functions, where they are, and what may be put in their place."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby

import click

from scenarios.report.console import print_json, terminal_width
from scenarios.subjects.kernel_functions import KernelFunction, functions_named
from scenarios.verbs import options


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@options.json_
@options.no_seed
def functions(names: tuple[str, ...], as_json: bool) -> None:
    """Show which function is which of Linux's, who calls it, and what `instead_of` takes within it.

    NAME is a function or hook (wildcards welcome), a name of Linux's that ours says to stand for, or a file
    of Linux or of ours, such as mm/mremap.c. Without any: all of them, a line each.
    """
    found = functions_named(names)
    if as_json:
        print_json({"functions": [one._asdict() for one in found]})
    elif names:
        click.echo("\n\n".join("\n".join(_in_full(one, terminal_width())) for one in found))
    else:
        click.echo("\n\n".join("\n".join(block) for block in _by_file(found)))


def _by_file(found: Sequence[KernelFunction]) -> Iterable[list[str]]:
    width = max(len(one.name) for one in found)
    for file, inside in groupby(found, key=lambda one: one.place.partition(":")[0]):
        yield [file, *(f"  {one.name:<{width}}  {one.does}" for one in inside)]


def _in_full(one: KernelFunction, width: int) -> Iterable[str]:
    where = ", ".join(one.kernel) or "none of Linux's"
    yield f"{one.name}  ({where})"
    whence = "class Mine(Immediate): override it" if one.is_hook else f"from {one.of} import {one.name}"
    rows = (
        ("", one.does),
        ("is", f"{one.place}; {one.signature}"),
        ("use", whence),
        ("called by", ", ".join(one.callers) or "no function of the kernel by name"),
        ("programs", ", ".join(one.programs)),
        ("asks hooks", ", ".join(one.hooks)),
        ("within it", ", ".join(one.uses)),
    )
    for title, text in rows:
        if text:
            indent = " " * 14
            yield from textwrap.wrap(
                text, max(width, 60), initial_indent=f"  {title:<12}", subsequent_indent=indent
            )
