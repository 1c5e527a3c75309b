"""Charts for pages: pygal's SVG, in the page's own colours, so that they are light or dark as it is."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pygal
from markupsafe import Markup
from pygal.style import Style

from scenarios.report.figures import duration

# It puts a finder of maps, which are not used here, among Python's own, of a kind that Python warns of.
sys.meta_path[:] = [one for one in sys.meta_path if type(one).__module__ != "pygal"]

_STYLE: Final = Style(
    background="transparent",
    plot_background="transparent",
    foreground="var(--text)",
    foreground_strong="var(--text)",
    foreground_subtle="var(--line)",
    colors=tuple(f"var(--chart-{number})" for number in range(8)),
    font_family="inherit",
    opacity=".85",
    opacity_hover="1",
    transition="0s",
    title_font_size=14,
    legend_font_size=12,
    guide_stroke_color="var(--line)",
    major_guide_stroke_color="var(--line)",
    stroke_width="1.6",
)
_MARKS: Final = {0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 0.9999: "99.99 %"}

Line = Sequence[tuple[float, float]]


def percentile_curves(title: str, curves: Mapping[str, Sequence[tuple[float, int]]]) -> Markup:
    """Of each name: what share of the times is below, and the time in ns. Both axes are logarithmic, the
    share's so that each further nine is as wide."""
    lines = {
        name: [(-math.log10(1 - below), math.log10(max(ns, 1))) for below, ns in points]
        for name, points in curves.items()
    }
    points = [point for line in lines.values() for point in line]
    right, least, most = max(x for x, _ in points), min(y for _, y in points), max(y for _, y in points)
    shares = [("least", 0.0), *((name, -math.log10(1 - share)) for share, name in _MARKS.items())]
    times = [digit * 10**decade for decade in range(12) for digit in (1, 2, 5)]
    below = max((place for place, ns in enumerate(times) if math.log10(ns) <= least), default=0)
    above = min((place for place, ns in enumerate(times) if math.log10(ns) >= most), default=len(times) - 1)
    return _drawn(
        pygal.XY(
            title=title,
            x_labels=[{"value": place, "label": name} for name, place in shares if place <= right + 1e-9],
            y_labels=[{"value": math.log10(ns), "label": duration(ns)} for ns in times[below : above + 1]],
            show_dots=False,
            value_formatter=lambda power: duration(round(10**power)),
            **_CONFIG,
        ),
        lines,
    )


def lines_over(title: str, axis: str, series: Mapping[str, Line], show: Callable[[float], str]) -> Markup:
    """Lines over a numeric axis, with a dot for each point."""
    places = sorted({x for line in series.values() for x, _ in line})
    labels = [{"value": x, "label": f"{x:g}"} for x in places]
    return _drawn(
        pygal.XY(
            title=title, x_title=axis, x_labels=labels, value_formatter=show, include_x_axis=True, **_CONFIG
        ),
        series,
    )


def over_time(title: str, end: int, line: Line) -> Markup:
    """A count over the time of a run, which ends at `end`, in ns."""
    labels = [{"value": end * part / 5, "label": duration(round(end * part / 5))} for part in range(6)]
    return _drawn(
        pygal.XY(
            title=title,
            x_labels=labels,
            xrange=(0, end),
            value_formatter=_whole,
            show_dots=False,
            show_legend=False,
            include_x_axis=True,
            **_CONFIG,
        ),
        {title: line},
    )


def stacked(title: str, labels: Sequence[str], series: Mapping[str, Sequence[int]]) -> Markup:
    """A bar for each label, in parts."""
    return _drawn(
        pygal.HorizontalStackedBar(title=title, x_labels=labels, value_formatter=_whole, **_CONFIG), series
    )


def bars_over(title: str, labels: Sequence[str], series: Mapping[str, Sequence[int]]) -> Markup:
    """Bars side by side at each label."""
    return _drawn(pygal.Bar(title=title, x_labels=labels, value_formatter=_whole, **_CONFIG), series)


def _whole(value: float) -> str:
    return f"{round(value):,}"


_CONFIG: Final[dict[str, Any]] = {
    "style": _STYLE,
    # Its script, for pop-ups, would come from the network.
    "js": [],
    "width": 640,
    "height": 300,
    "legend_at_bottom": True,
    "disable_xml_declaration": True,
    "truncate_legend": 60,
    "truncate_label": 40,
}


def _drawn(chart: Any, series: Mapping[str, Any]) -> Markup:
    # It would put an id by chance into the page.
    chart.uuid = re.sub(r"\W+", "-", chart.config.title)
    chart.xml_filters.append(_picture)
    for name, values in series.items():
        chart.add(name, values)
    return Markup(chart.render())


def _picture(tree: Any) -> Any:
    """Without comments, which have the date, and its script."""
    for parent in list(tree.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.endswith("script"):
                parent.remove(child)
    return tree
