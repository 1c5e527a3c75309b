"""The templates of pages, with what all of them use."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from scenarios.report.figures import duration, number


def template(name: str) -> Template:
    """One of `pages/`. What is put into it is escaped, and what it asks for has to be there."""
    pages = Environment(
        loader=PackageLoader("scenarios.report", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"number": number, "duration": duration}
    return pages.get_template(name)
