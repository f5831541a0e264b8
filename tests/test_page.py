"""The page of results: what a program reads back from it, and what a browser shows of it."""

import dataclasses
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from samples import SIZES, record
from test_plot import basin, surface
from test_store import surfaces

from landscape import page, page_data, store
from landscape.page import Entry

pytest_plugins = ["browser"]

HOSTILE = '</script><script>alert("x")</script><!-- & "\''


def entry(result: Any, name: str = "a.h5", **changes: Any) -> Entry:
    values = {"words": ["loss: 1 +- 2", "note: a"], "config": {"seed": 0}, "provenance": {}}
    return Entry(name, result, **(values | changes))


def make(*entries: Entry, left_out: dict[str, str] | None = None, title: str = "A page") -> str:
    return page.page(entries, left_out or {}, title=title)


class Reader(html.parser.HTMLParser):
    """The elements of a page, the texts outside scripts, and the data, as a browser has them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside = ""
        self.data, self.words = "", ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside = dict(attrs).get("id", tag) if tag == "script" else tag

    def handle_endtag(self, tag):  # noqa: ARG002
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "landscape-data":
            self.data += data
        elif self.inside not in ("script", "style"):
            self.words += data


def data(text: str) -> dict[str, Any]:
    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(Reader(text).data, parse_constant=no_constant)


def equal(stored: Any, value: Any) -> bool:
    """Whether JSON says what a field of a record does."""
    if value is None or isinstance(value, bool | str):
        return stored is value or stored == value
    if isinstance(value, np.ndarray):
        read = np.array(stored, dtype=value.dtype).reshape(value.shape)
        return np.array_equal(read, value, equal_nan=value.dtype.kind == "f")
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return set(names) == set(stored) and all(
            equal(stored[name], getattr(value, name)) for name in names
        )
    if isinstance(value, dict):
        return set(stored) == set(value) and all(equal(stored[k], v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return len(stored) == len(value) and all(map(equal, stored, value))
    return float(stored) == value or (np.isnan(value) and stored == "NaN")


@pytest.mark.parametrize("kind", store.KINDS)
def test_the_data_of_a_page_are_the_record_to_the_last_digit(kind):
    result = record(kind)
    (read,) = data(make(entry(result, config={"seed": 3}, provenance={"command": "x"})))["results"]
    assert equal(read["record"], result)
    assert (read["kind"], read["file"], read["thinned"]) == (kind, "a.h5", {})
    assert (read["config"], read["provenance"]) == ({"seed": 3}, {"command": "x"})


@given(surfaces())
def test_any_surface_comes_back(result):
    (read,) = data(make(entry(result)))["results"]
    assert equal(read["record"], result)


@pytest.mark.parametrize("kind", store.KINDS)
def test_every_kind_has_a_headline_and_a_name(kind):
    words = Reader(make(entry(record(kind)))).words
    assert page.KINDS[kind] in words
    found, sure = page.headline(record(kind))
    assert found
    assert sure
    assert "nan" not in (found + sure).lower().split()


def test_a_partial_result_says_so():
    result = dataclasses.replace(record("surface"), complete=False)
    assert page.headline(result)[1].startswith("partial; ")
    assert "Surface partial" in Reader(make(entry(result))).words


def test_names_are_text_wherever_they_stand():
    result = dataclasses.replace(
        record("surface"), title=HOSTILE, alpha_label=HOSTILE, marker_names=(HOSTILE, "b")
    )
    hostile = entry(
        result,
        HOSTILE,
        words=[f"{HOSTILE}: {HOSTILE}  {HOSTILE}"],
        config={HOSTILE: HOSTILE},
        provenance={"command": HOSTILE},
    )
    text = make(hostile, left_out={HOSTILE: HOSTILE}, title=HOSTILE)
    read = Reader(text)
    tags = ("script", "img", "h1", "h2", "article", "li")
    assert [read.tags.count(tag) for tag in tags] == [2, 0, 1, 2, 1, 1]
    assert read.words.count(HOSTILE) >= 9
    assert data(text)["results"][0]["record"]["title"] == HOSTILE
    assert data(text)["left_out"] == [{"file": HOSTILE, "reason": HOSTILE}]


def test_half_a_surrogate_pair_does_not_stop_the_page():
    text = make(entry(dataclasses.replace(record("line"), title="a\ud800b")))
    assert "a?b" in text
    assert data(text)["results"][0]["record"]["title"] == "a\ud800b"


def test_what_was_left_out_is_listed_with_the_reason():
    words = Reader(make(entry(record("line")), left_out={"x.h5": "it is damaged"})).words
    assert "Left out: 1 file" in words
    assert "x.h5: it is damaged" in words
    assert "Left out" not in Reader(make(entry(record("line")))).words


def test_a_huge_grid_is_thinned_with_a_note_and_keeps_ends_and_centre():
    result = surface(basin, shape=(301, 201), points=(9, 9))
    text = make(entry(result))
    (read,) = data(text)["results"]
    assert read["thinned"] == {"alpha": [301, 121], "beta": [201, 121]}
    alpha = np.array(read["record"]["alpha"])
    assert {-1.0, 0.0, 1.0} <= set(alpha)
    at = [int(np.flatnonzero(result.alpha == a)[0]) for a in alpha[[3, 60, 117]]]
    column = np.array(read["record"]["quantities"]["loss"]["grid"])[[3, 60, 117], 0]
    assert (column == result.loss.grid[at, 0]).all()
    assert "121 of 301 along alpha" in Reader(text).words


def test_ten_surfaces_of_the_default_size_make_a_page_under_two_megabytes():
    result = surface(basin, shape=(51, 51), points=(17, 17))
    assert len(make(*[entry(result, f"{i}.h5") for i in range(10)]).encode()) < 2e6
    assert len(make(entry(record("line"))).encode()) < 150e3


def test_equal_results_give_equal_pages_and_no_address_is_asked():
    text = make(entry(record("hessian")))
    assert text == make(entry(record("hessian")))
    links = [value for name, value in Reader(text).attributes if name in ("src", "href")]
    assert all(link.startswith("#") for link in links)
    assert re.findall(r"https?://[^\s\"']+", text) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in text


def test_every_script_on_the_disk_is_on_the_page():
    assert {f"{name}.js" for name in page.SCRIPTS} == {p.name for p in page.PARTS.glob("*.js")}


def test_a_limit_is_odd_so_that_the_middle_stays():
    limits = (*page_data.MOST.values(), page_data.LINE, page_data.OTHERS)
    assert all(limit % 2 for limit in limits)
    assert max(SIZES.values()) < min(limits)


# In a browser


def saved(folder: Path, *entries: Entry) -> Path:
    path = folder / "report.html"
    path.write_text(make(*entries, left_out={"x.h5": "damaged"}), encoding="utf-8")
    return path


def stage(browser: Any, number: int = 0, part: str = ".stage:not(.relief)") -> dict[str, float]:
    """Where a stage is, once it has been scrolled to and drawn."""
    find = f"document.querySelectorAll('#results {part}')[{number}]"
    browser.value(f"{find}.scrollIntoView({{block: 'center'}})")
    for _ in range(5):
        browser.settle()
    box = "(({left, top, width, height}) => ({left, top, width, height}))"
    return browser.value(f"{box}({find}.getBoundingClientRect())")


def colours(browser: Any, canvas: str) -> int:
    """How many different colours a canvas has."""
    return browser.value(
        f"(() => {{ const c = document.querySelector('{canvas}');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return new Set(new Uint32Array(d.buffer)).size; })()"
    )


def tip(browser: Any) -> str:
    return browser.value("document.getElementById('tip').textContent")


@pytest.mark.slow
def test_every_kind_is_drawn_without_a_complaint(browser, tmp_path):
    path = saved(tmp_path, *[entry(record(kind), f"{kind}.h5") for kind in store.KINDS])
    browser.open(path)
    for number in range(len(store.KINDS)):
        browser.value(f"document.getElementById('result-{number}').scrollIntoView()")
        browser.settle()
        drawn = f"#result-{number} .view svg[role=img], #result-{number} .view canvas"
        assert browser.value(f"document.querySelectorAll('{drawn}').length") >= 1
    words = browser.value("document.body.innerText")
    assert "could not be drawn" not in words
    assert "no picture" not in words
    for scheme in ("dark", "light"):
        browser.media(scheme)
    assert browser.pdf().startswith(b"%PDF")
    assert browser.complaints == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data"}


@pytest.mark.slow
def test_hover_and_arrow_keys_show_the_value_in_the_file(browser, tmp_path):
    result = surface(basin, shape=(21, 31), points=(9, 9))
    browser.open(saved(tmp_path, entry(result)))
    box = stage(browser)
    assert colours(browser, "#results .stage:not(.relief) > canvas") > 100
    assert colours(browser, "#results .relief > canvas") > 100
    plot = browser.value(
        "(({left, top, width, height}) => ({left, top, width, height}))"
        "(document.querySelector('#results .stage > canvas').getBoundingClientRect())"
    )
    i, j = 4, 25
    at = [(axis[n] - axis[0]) / np.ptp(axis) for axis, n in ((result.alpha, i), (result.beta, j))]
    browser.point(plot["left"] + at[0] * plot["width"], plot["top"] + (1 - at[1]) * plot["height"])
    value = float(re.search(r"loss ([\d.]+)", tip(browser))[1])
    assert value == pytest.approx(result.loss.grid[i, j], rel=1e-5)
    assert "interpolated" in tip(browser)

    browser.value("document.querySelector('#results .stage').focus()")
    browser.key("Home")
    for _ in range(2):
        browser.key("ArrowRight")
    browser.key("ArrowUp")
    value = float(re.search(r"loss ([\d.]+)", tip(browser))[1])
    assert value == pytest.approx(result.loss.grid[12, 16], rel=1e-5)
    assert box["width"] > 300
    assert browser.complaints == []


@pytest.mark.slow
def test_a_drag_and_the_arrow_keys_turn_the_surface(browser, tmp_path):
    browser.open(saved(tmp_path, entry(surface(basin))))
    box = stage(browser, part=".relief")
    picture = "document.querySelector('#results .relief > canvas').toDataURL()"
    pictures = [browser.value(picture)]
    middle = (box["left"] + box["width"] / 2, box["top"] + box["height"] / 2)
    browser.drag(middle, (middle[0] + 90, middle[1] + 20))
    pictures.append(browser.value(picture))
    browser.value("document.querySelector('#results .relief').focus()")
    browser.key("ArrowLeft")
    pictures.append(browser.value(picture))
    assert len(set(pictures)) == 3
    assert browser.complaints == []


@pytest.mark.slow
def test_several_surfaces_share_their_colours_and_can_be_subtracted(browser, tmp_path):
    low, high = (
        surface(basin, shape=(21, 21)),
        surface(lambda a, b: basin(a, b) + 2, shape=(21, 21)),
    )
    browser.open(saved(tmp_path, entry(low, "low.h5"), entry(high, "high.h5")))
    ends = "[...document.querySelectorAll('#results input[type=number]')].map(i => Number(i.value))"
    least, most, *others = browser.value(ends)
    assert others == [least, most]
    assert least == pytest.approx(low.loss.grid.min(), rel=1e-3)
    assert most == pytest.approx(high.loss.grid.max(), rel=1e-3)
    shared = "document.querySelectorAll('#results .controls label')"
    browser.value(f"[...{shared}].find(l => /one scale/.test(l.textContent)).firstChild.click()")
    assert browser.value(ends)[1] == pytest.approx(low.loss.grid.max(), rel=1e-3)

    browser.value("scrollTo(0, 0)")
    browser.value("document.querySelector('#difference .stage').scrollIntoView({block: 'center'})")
    browser.settle()
    browser.settle()
    browser.value("document.querySelector('#difference .stage').focus()")
    browser.key("Home")
    assert "loss 2" in tip(browser).splitlines()  # high minus low, everywhere
    assert browser.complaints == []


@pytest.mark.slow
def test_a_script_in_a_name_does_not_run(browser, tmp_path):
    evil = "<img src=x onerror='window.evil = 1'></script><script>window.evil = 1</script>"
    result = dataclasses.replace(record("surface"), title=evil, marker_names=(evil, evil))
    browser.open(saved(tmp_path, entry(result, evil, words=[f"{evil}: {evil}"])))
    stage(browser)
    assert browser.value("window.evil === undefined")
    title = "document.querySelector('#result-0 h2').textContent"
    assert browser.value(title) == evil
    assert browser.complaints == []
