"""Results as one page for a browser: self-contained, interactive, and readable as data.

The page asks the network for nothing, and says so to the browser: its policy admits the one
script that was put in, by its hash. The records stand in it as JSON (`page_data`), under the id
`landscape-data`; the script draws from them. Equal results give equal pages.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from landscape.page_data import encode, plain
from landscape.page_headline import KINDS, headline
from landscape.results import Result

MARK = "<!-- made by landscape report -->"  # near the top of every page
PARTS = Path(__file__).with_name("page_parts")
SCRIPTS = ("base", "axes", "chart", "rows", "contours", "relief", "surface", "kinds", "start")
_VARIABLE = ("command", "started", "seconds", "notes")  # of the provenance, first in this order


@dataclass(frozen=True)
class Entry:
    """One result of a page, and where it came from."""

    name: str  # file, as the person named it
    result: Result
    words: Sequence[str]  # what to know of it, "name: fact" each
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]


def page(entries: Sequence[Entry], left_out: Mapping[str, str], *, title: str) -> str:
    """The text of the page.

    Args:
        entries: the results, in the order of the page.
        left_out: files that the page does not show, and why.
        title: of the page.
    """
    encoded = [encode(entry.result) for entry in entries]
    tool = version("landscape-toolkit")
    data = {
        "landscape_page": 1,
        "version": tool,
        "title": title,
        "results": [
            {
                "file": entry.name,
                "kind": entry.result.kind,
                "record": record,
                "thinned": {name: list(sizes) for name, sizes in thinned.items()},
                "config": plain(entry.config),
                "provenance": plain(entry.provenance),
            }
            for entry, (record, thinned) in zip(entries, encoded, strict=True)
        ],
        "left_out": [{"file": name, "reason": reason} for name, reason in left_out.items()],
    }
    script = "".join(_part(f"{name}.js") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    articles = [
        _article(number, entry, thinned)
        for number, (entry, (_, thinned)) in enumerate(zip(entries, encoded, strict=True))
    ]
    text = Template(_part("page.html")).substitute(
        mark=MARK,
        title=html.escape(title),
        version=html.escape(tool),
        digest=digest,
        style=_part("page.css"),
        count=f"{len(entries)} result{'s' * (len(entries) != 1)}",
        summary="\n".join(_row(number, entry) for number, entry in enumerate(entries)),
        left_out=_left_out(left_out),
        articles="\n".join(articles),
        data=_json(data),
        script=script,
    )
    return text.encode("utf-8", "replace").decode()  # a name may hold half a surrogate pair


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
    """JSON that no parser of HTML takes for the end of its element, or for a comment."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _row(number: int, entry: Entry) -> str:
    found, sure = headline(entry.result)
    verdict = getattr(entry.result, "verdict", "")
    badge = f' class="{html.escape(verdict)}"' if verdict else ""
    return (
        f'<tr><th scope="row"><a href="#result-{number}">{_title(entry)}</a>'
        f'<span class="file">{html.escape(entry.name)}</span></th>'
        f"<td>{KINDS[entry.result.kind]}</td><td{badge}>{html.escape(found)}</td>"
        f"<td>{html.escape(sure)}</td></tr>"
    )


def _title(entry: Entry) -> str:
    return html.escape(entry.result.title or entry.name)


def _left_out(left_out: Mapping[str, str]) -> str:
    if not left_out:
        return ""
    rows = "".join(
        f"<li><code>{html.escape(name)}</code>: {html.escape(reason)}</li>"
        for name, reason in left_out.items()
    )
    files = f"{len(left_out)} file{'s' * (len(left_out) != 1)}"
    return f'<section class="left-out"><h2>Left out: {files}</h2><ul>{rows}</ul></section>'


def _article(number: int, entry: Entry, thinned: Mapping[str, tuple[int, int]]) -> str:
    """One result: its picture (which the script draws), its words and its provenance."""
    kind = KINDS[entry.result.kind]
    partial = "" if entry.result.complete else ' <span class="partial">partial</span>'
    notes = [
        f"Thinned for this page: {shown:,} of {whole:,} along {name}; the file has all of them."
        for name, (whole, shown) in thinned.items()
    ]
    return f"""<article id="result-{number}">
<header><p class="kind">{kind}{partial}</p><h2>{_title(entry)}</h2>
<p class="file">{html.escape(entry.name)}</p></header>
<div class="view" data-result="{number}"></div>
{"".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)}
<h3>In words</h3>
<dl class="words">{_words(entry.words)}</dl>
<details><summary>Where it comes from</summary>
<dl class="facts">{_facts({**entry.provenance, **entry.config})}</dl></details>
</article>"""


def _words(lines: Sequence[str]) -> str:
    """Facts under their names; several columns of a line become columns of the page."""
    parts, last = [], None
    for line in lines:
        name, _, fact = line.replace(" +- ", " \N{PLUS-MINUS SIGN} ").partition(": ")
        cells = [html.escape(cell) for cell in re.split(r" {2,}", fact.strip())]
        fact = cells[0] if len(cells) == 1 else "".join(f"<span>{cell}</span>" for cell in cells)
        shown = html.escape(name) if name != last else ""
        columns = ' class="columns"' if len(cells) > 1 else ""
        parts.append(f"<dt>{shown}</dt><dd{columns}>{fact}</dd>")
        last = name
    return "".join(parts)


def _facts(facts: Mapping[str, Any]) -> str:
    parts = []
    for name in sorted(facts, key=lambda n: _VARIABLE.index(n) if n in _VARIABLE else 9):
        value = facts[name]
        if value is not None and value is not False and value not in ("", [], {}):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parts.append(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>")
    return "".join(parts)
