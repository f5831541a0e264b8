"""Results as notebooks show them, and the cells of docs/notebook.md in a kernel."""

import re
import subprocess
import sys
import typing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from landscape import results, store
from landscape.records import MOST_SHOWN, Record

pytest_plugins = ["keyboard"]
PAGE = Path(__file__).parents[1] / "docs" / "notebook.md"


class Told(Record):
    """A record with the summary it is given."""

    def __init__(self, **values: object) -> None:
        self.values = values

    def summary(self) -> dict:
        return self.values


def rows(record: Record) -> dict[str, str]:
    """What the table says, by the name of the row; reading it shows that it is well formed."""
    table = ElementTree.fromstring(record._repr_html_().replace("&plusmn;", "+-"))
    cells = [["".join(cell.itertext()) for cell in row] for row in table]
    return {name: fact for name, fact in cells}


def test_every_kind_of_result_is_a_table():
    assert all(issubclass(kind, Record) for kind in typing.get_args(results.Result))


def test_a_number_has_its_error_beside_it():
    assert rows(Told(loss=1.23456789, loss_stderr=0.25, count=3, converged=True)) == {
        "loss": "1.23457 +- 0.25",
        "count": "3",
        "converged": "True",
    }


def test_what_is_not_there_has_no_row():
    assert rows(Told(a=None, b="", c=[], d={}, e=0, f=False, g=1.0, g_stderr=None)) == {
        "e": "0",
        "f": "False",
        "g": "1",
    }


def test_names_from_outside_are_text():
    text = rows(Told(title="<b>a & b</b>", models={"<i>": ["</table>"]}))
    assert text == {"title": "<b>a & b</b>", "models": "<i></table>"}


def test_a_long_list_is_cut_and_counted():
    assert rows(Told(step=list(range(MOST_SHOWN))))["step"].endswith("8, 9")
    assert rows(Told(step=list(range(12))))["step"].endswith("8, 9, ... (12)")


def test_a_stored_surface_tells_its_loss(terminal):
    terminal.run("line", "ckpt.pt", "--resolution", "3", "--exact", "--no-plot")
    result = store.load(terminal.folder / "ckpt.line.h5")
    summary, told = result.summary(), rows(result)
    mean, stderr = summary["loss_at_centre"], summary["loss_at_centre_stderr"]
    assert told["loss_at_centre"] == f"{mean:.6g} +- {stderr:.6g}"
    assert told["title"] == result.title


def test_a_table_needs_neither_torch_nor_matplotlib():
    code = (
        "import sys\n"
        "from landscape.results import Record\n"
        "assert Record._repr_html_\n"
        "print([n for n in ('torch', 'matplotlib', 'IPython') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_the_cells_of_the_page_run_in_a_kernel(terminal):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    run = ("surface", "ckpt.pt", "--resolution", "5x5", "--no-plot")
    assert terminal.run(*run).code == 0
    page = PAGE.read_text(encoding="utf-8")
    sources = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(terminal.folder)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()
    shown = [set().union(*(out.get("data", {}) for out in cell.outputs)) for cell in cells]
    assert "text/html" in shown[0]
    assert "image/png" in shown[1]
    assert "text/html" in shown[3]
    assert store.load(terminal.folder / "mine.surface.h5").kind == "surface"
