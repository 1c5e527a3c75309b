"""`--html`: the result as a page too. It is told first and written then: a full disk costs the page only."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from scenarios.disk import file_problems, whole_file
from scenarios.files.named_files import check_named
from scenarios.files.results import read_result
from scenarios.usage import UsageProblem
from scenarios.verbs import exits
from scenarios.verbs.options import FILE

MARK = b"<!DOCTYPE html>"


@dataclass
class Page:
    """Where the page goes, if one is wanted, and whether it could not be written."""

    path: Path | None
    failed: bool = False

    def write(self, document: Callable[[], Mapping[str, Any]]) -> None:
        """Write it; what goes wrong is told on standard error, as the result has been told already."""
        if self.path is None:
            return
        # The template engine and the charts take a while to import.
        from scenarios.report.result_page import write_page

        try:
            with (
                file_problems(f"--html {self.path}", "a file that can be written"),
                whole_file(self.path) as into,
            ):
                text = io.TextIOWrapper(into, "utf-8", newline="\n", write_through=True)
                write_page(read_result(document()), text)
                text.detach()
        except UsageProblem as problem:
            self.failed = True
            problem.show()

    def code(self, code: int) -> int:
        """The exit code of a verb that would end with `code`: what was found counts for more."""
        return code or (exits.BAD_INPUT if self.failed else 0)


def _page(context: click.Context, option: click.Parameter, value: Path | None) -> Page:
    if value is not None:
        check_named(value, "--html", MARK)
    return Page(value)


html = click.option(
    "--html",
    type=FILE,
    metavar="FILE",
    callback=_page,
    help="The result as one HTML page too.",
)
