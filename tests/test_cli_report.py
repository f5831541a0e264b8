"""`landscape report`: one page of result files."""

import json
import re

import pytest
from samples import record

from landscape import page, store

pytest_plugins = ["keyboard"]


@pytest.fixture
def folder(terminal):
    """A terminal in which there are results of every kind."""
    for kind in store.KINDS:
        path = terminal.folder / f"{kind}.h5"
        store.save(path, record(kind), config={"seed": 1}, provenance={"command": "made by hand"})
    return terminal


def read(terminal, name="report.html"):
    text = (terminal.folder / name).read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="landscape-data">(.*?)</script>', text)
    return text, json.loads(found[1])


def test_the_page_of_every_kind_stands_where_it_was_asked_for(folder):
    files = [f"{kind}.h5" for kind in store.KINDS]
    result = folder.run("report", *files, "-o", "all.html", "--title", "Of <all> kinds")
    assert (result.code, result.out, result.err) == (0, "all.html\n", "")
    text, data = read(folder, "all.html")
    assert [entry["file"] for entry in data["results"]] == files
    assert "<title>Of &lt;all&gt; kinds</title>" in text
    assert "made by hand" in text
    assert text.count("<article ") == len(files)


def test_files_that_cannot_be_shown_are_listed_and_warned_of(folder):
    (folder.folder / "cut.h5").write_bytes((folder.folder / "line.h5").read_bytes()[:-300])
    result = folder.run("report", "line.h5", "ckpt.pt", "cut.h5", "none.h5")
    assert (result.code, result.out) == (0, "report.html\n")
    warned = result.err.splitlines()
    reasons = ("was not written by landscape", "is damaged", "there is no file 'none.h5'")
    for line, name, reason in zip(warned, ("ckpt.pt", "cut.h5", "none.h5"), reasons, strict=True):
        assert line.startswith(f"warning: left out '{name}': ")
        assert reason in line
    text, data = read(folder)
    assert [entry["file"] for entry in data["left_out"]] == ["ckpt.pt", "cut.h5", "none.h5"]
    assert "Left out: 3 files" in text


def test_nothing_to_show_is_an_error_and_writes_nothing(folder):
    result = folder.run("report", "ckpt.pt", "none.h5")
    assert result.code == 1
    assert "none of the 2 files can be shown" in result.sentence
    assert not (folder.folder / "report.html").exists()


def test_an_older_report_is_replaced_and_no_other_file(folder):
    assert folder.run("report", "line.h5").code == 0
    assert folder.run("report", "line.h5", "merge.h5").code == 0
    assert len(read(folder)[1]["results"]) == 2
    before = (folder.folder / "merge.h5").read_bytes()
    result = folder.run("report", "line.h5", "-o", "merge.h5")
    assert result.code == 1
    assert "'merge.h5' was not made by landscape report" in result.sentence
    assert (folder.folder / "merge.h5").read_bytes() == before
    assert folder.run("report", "line.h5", "-o", "merge.h5", "--overwrite").code == 0
    assert page.MARK in (folder.folder / "merge.h5").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "words"), [(".", "is not a regular file"), ("no/report.html", "cannot write")]
)
def test_a_place_that_cannot_be_written_is_named(folder, place, words):
    result = folder.run("report", "line.h5", "-o", place)
    assert result.code == 1
    assert words in result.sentence


def test_a_real_surface_is_on_the_page_with_its_words(terminal):
    assert terminal.run("surface", "ckpt.pt", "--resolution", "5x5", "--no-plot").code == 0
    assert terminal.run("report", "ckpt.surface.h5").code == 0
    text, data = read(terminal)
    stored = store.load(terminal.folder / "ckpt.surface.h5")
    grid = data["results"][0]["record"]["quantities"]["loss"]["grid"]
    assert grid == stored.loss.grid.tolist()
    assert "25 for 25 cells; every cell evaluated" in text
    assert data["results"][0]["provenance"]["command"]
