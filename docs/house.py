"""Draws the rooms of the house and the arrows between them into architecture.md, from what is imported.

A room is what lies directly in `emulator` or `scenarios`, and `actors` as a whole. An arrow is left out where
a longer way leads there. `--check` changes nothing, and fails where the picture is not what the code is.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

import grimp
import networkx as nx

PAGE = Path(__file__).parent / "architecture.md"
BEGIN, END = "<!-- drawn by docs/house.py -->\n", "<!-- end of the drawing -->\n"
HOUSES = ("scenarios", "actors", "emulator")


def rooms() -> nx.DiGraph:
    """The rooms that import another, each with an arrow to it; no arrow where others lead there."""
    imports = grimp.build_graph(*HOUSES, cache_dir=None)
    divided = {module.split(".")[0] for module in imports.modules if module.count(".") > 1}

    def room(module: str) -> str:
        house, *inner = module.split(".")
        return f"{house}.{inner[0]}" if inner and house in divided else house

    arrows = nx.DiGraph()
    for module in imports.modules:
        for imported in imports.find_modules_directly_imported_by(module):
            if room(module) != room(imported) and not module.endswith("__main__"):
                arrows.add_edge(room(module), room(imported))
    for circle in nx.strongly_connected_components(arrows):
        if len(circle) > 1:
            sys.exit(f"docs/house.py: error: these rooms import each other: {', '.join(sorted(circle))}")
    return nx.transitive_reduction(arrows)


def picture() -> str:
    """The rooms as a Mermaid flow chart, one box a house."""
    arrows = rooms()
    lines = ["```mermaid", "flowchart TD"]
    for house, inside in groupby(sorted(arrows), key=lambda room: room.partition(".")[0]):
        if boxes := [f"        {room}[{room.removeprefix(f'{house}.')}]" for room in inside if room != house]:
            lines += [f"    subgraph {house}", *boxes, "    end"]
    lines += [f"    {room} --> {other}" for room, other in sorted(arrows.edges)]
    return "\n".join([*lines, "```", ""])


def main() -> None:
    """Draw it, or look whether it is drawn."""
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    drawn = f"{before}{begin}{picture()}{end}{after}"
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(drawn)
    elif drawn != page:
        sys.exit("docs/house.py: error: architecture.md shows other rooms and arrows; run docs/house.py")


if __name__ == "__main__":
    main()
