"""report.html: one file that opens anywhere, offline; pictures, styles and pages of the rules are inside."""

from __future__ import annotations

import base64
import re
from html import escape
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from kubetape.analyze.durations import duration
from kubetape.reports import svg
from kubetape.reports.data import ReportData
from kubetape.reports.layout import topology


def render(data: ReportData, charts: dict[str, str]) -> str:
    """The page. charts: name -> path of a PNG to embed."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kubetape.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(ms=duration, count=count, size=size, share=share, page=page)
    images = {}
    for name, path in charts.items():
        with open(path, "rb") as picture:
            images[name] = "data:image/png;base64," + base64.b64encode(picture.read()).decode()
    return environment.get_template("report.html.j2").render(
        data=data,
        images=images,
        topology=Markup(svg.draw(topology(data.edges, data.findings))),
        style=Markup(files("kubetape.reports").joinpath("templates/report.css").read_text("utf8")),
    )


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def size(value_bytes: float | None) -> str:
    if value_bytes is None:
        return "–"
    for unit in ("B", "KB", "MB"):
        if value_bytes < 1000:
            return f"{value_bytes:.3g} {unit}"
        value_bytes /= 1000
    return f"{value_bytes:.3g} GB"


def share(part: float | None, whole: float | None = 1) -> str:
    if part is None or not whole:
        return "–"
    ratio = part / whole
    if not ratio:
        return "0 %"
    if ratio < 0.0001:
        return "< 0.01 %"
    return f"{100 * ratio:.2g} %" if ratio < 0.1 else f"{100 * ratio:.0f} %"


def page(text: str) -> Any:
    """The page of a rule (its small part of Markdown: heading, bold, code, paragraphs) as HTML."""
    blocks = [b for b in text.strip().split("\n\n") if not b.startswith("# ")]
    html = []
    for block in blocks:
        line = escape(" ".join(block.split()))
        line = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", line)
        html.append("<p>" + re.sub(r"`(.+?)`", r"<code>\1</code>", line) + "</p>")
    return Markup("\n".join(html))
