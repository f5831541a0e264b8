"""Finding, loading and refusing tasks."""

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import as_task, cross_entropy, mlp, objective
from torch import nn

from landscape import task
from landscape.errors import UserError

SOURCE = """
import torch
from torch import nn

class Net(nn.Linear):
    def __init__(self, width=2):
        super().__init__(3, width)

model = Net
batch_size = 4

def data(split="train", count=6):
    x = torch.arange(count * 3.0).reshape(count, 3)
    return -x if split == "val" else x

def loss(net, batch):
    return net(batch).square().sum(1)

class other:
    def __init__(self):
        self.scale = 2.0
    def model(self, checkpoint):
        return Net()
    def data(self):
        return data()
    def loss(self, net, batch):
        return self.scale * loss(net, batch)
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test in a folder of its own, with the modules and paths from before afterwards."""
    monkeypatch.delenv("LANDSCAPE_TASK", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def _write(path: Path, text: str = SOURCE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_a_task(tmp_path: Path) -> None:
    path = _write(tmp_path / "mine.py")
    found = task.load(str(path))
    assert found.batch_size == 4
    assert found.source == path
    assert found.split == "train"
    assert not found.loads_itself
    net, batch = found.model(), found.data()
    assert torch.equal(found.loss(net, batch), net(batch).square().sum(1))


def test_an_object_in_a_file_is_a_task(tmp_path: Path) -> None:
    path = _write(tmp_path / "mine.py")
    plain, other = task.load(str(path)), task.load(f"{path}:other")
    net = plain.model()
    assert torch.equal(other.loss(net, other.data()), 2 * plain.loss(net, plain.data()))
    assert other.loads_itself
    assert other.split is None


def test_a_module_of_a_package_is_a_task(tmp_path: Path) -> None:
    _write(tmp_path / "pkg_of_mine" / "__init__.py", "")
    _write(tmp_path / "pkg_of_mine" / "tasks.py")
    assert task.load("pkg_of_mine.tasks").batch_size == 4
    assert task.load("pkg_of_mine.tasks:other").loads_itself


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    _write(tmp_path / "sub" / "neighbour_of_task.py")
    path = _write(tmp_path / "sub" / "mine.py", "from neighbour_of_task import *")
    assert task.load(str(path)).split == "train"


def test_a_file_named_like_a_loaded_module_does_not_replace_it(tmp_path: Path) -> None:
    found = task.load(str(_write(tmp_path / "types.py")))
    assert found.split == "train"
    assert sys.modules["types"] is types


def test_settings_bind_arguments(tmp_path: Path) -> None:
    settings = task.parse_settings(["data.split=val", "data.count=2", "model.width=5"])
    found = task.load(str(_write(tmp_path / "mine.py")), settings=settings)
    assert found.split == "val"
    assert found.data().tolist() == [[0, -1, -2], [-3, -4, -5]]
    assert found.model().out_features == 5


def test_settings_are_literals_or_text() -> None:
    pairs = [
        "a.b=1",
        "a.c=1e-3",
        "a.d=val",
        "a.e=[1, 2]",
        "a.f=true",
        "a.g=None",
        "a.h=x=y",
        "a.i=",
    ]
    expected = [1, 1e-3, "val", [1, 2], True, None, "x=y", ""]
    assert list(task.parse_settings(pairs).values()) == expected


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("split=val", r"--set split: write MEMBER\.ARGUMENT=VALUE.*one of model, data, loss"),
        ("metrics.k=1", r"--set metrics\.k: write MEMBER"),
        ("data.spilt=val", r"data takes no argument 'spilt' \(it takes split, count\)"),
    ],
)
def test_settings_that_fit_nothing_are_refused(tmp_path: Path, setting: str, text: str) -> None:
    path = _write(tmp_path / "mine.py")
    with pytest.raises(UserError, match=text):
        task.load(str(path), settings=task.parse_settings([setting]))


def test_a_setting_without_value_is_refused() -> None:
    with pytest.raises(UserError, match=r"--set data\.split: write MEMBER\.ARGUMENT=VALUE"):
        task.parse_settings(["data.split"])


@pytest.mark.parametrize(
    ("place", "source", "text"),
    [
        ("none.py", None, r"there is no task file none\.py; `landscape init`"),
        ("mine.py", "import nowhere_at_all", "cannot be imported: ModuleNotFoundError.*line 1"),
        ("mine.py", "x = 1\ndef f(:", r"cannot be imported: SyntaxError"),
        ("mine.py", "raise ValueError", r"cannot be imported: ValueError \(mine\.py, line 1\)"),
        ("mine.py", "def model(): pass", r"mine\.py has no callable 'data': a task needs model"),
        ("mine.py", "model = data = loss = 3", "has no callable 'model'"),
        ("mine.py:Absent", SOURCE, r"mine\.py has no 'Absent', which --task mine\.py:Absent"),
        ("nowhere.module", None, r"task module nowhere\.module cannot be imported: ModuleNotFound"),
        (
            "mine.py",
            SOURCE.replace('split="train"', "split"),
            r"data needs an argument 'split': give it a default, or pass --set data\.split=VALUE",
        ),
        (
            "mine.py",
            SOURCE.replace("def loss(net, batch)", "def loss(net, batch, scale)"),
            r"loss needs an argument 'scale'",
        ),
        (
            "mine.py",
            SOURCE.replace("class other", "def outputs(net, batch): pass\n\nclass other"),
            r"only one of outputs\(net, batch\) and output_loss\(outputs, batch\): give both, so",
        ),
        (
            "mine.py",
            SOURCE.replace(
                "class other", "outputs = loss\ndef output_loss(z, b, c): ...\nclass other"
            ),
            r"output_loss needs an argument 'c'",
        ),
    ],
)
def test_what_is_no_task_is_refused_with_the_reason(
    place: str, source: str | None, text: str
) -> None:
    if source is not None:
        _write(Path("mine.py"), source)
    with pytest.raises(UserError, match=text):
        task.load(place)


def test_a_required_argument_may_be_set(tmp_path: Path) -> None:
    path = _write(tmp_path / "mine.py", SOURCE.replace('split="train"', "split"))
    assert task.load(str(path), settings={"data.split": "val"}).split == "val"


def test_a_class_that_needs_arguments_is_refused() -> None:
    class Needy:
        def __init__(self, path: str) -> None: ...

    with pytest.raises(UserError, match=r"building of needy failed: TypeError.*'path'"):
        task.from_object(Needy, name="needy")


def test_the_option_goes_before_the_environment_the_project_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "a" / "b"
    _write(inner / "landscape_task.py")
    assert task.find(folder=inner) == str(inner / "landscape_task.py")
    _write(tmp_path / "pyproject.toml", '[tool.landscape]\ntask = "tasks/mine.py:Val"')
    assert task.find(folder=inner) == f"{tmp_path / 'tasks' / 'mine.py'}:Val"
    _write(tmp_path / "a" / "landscape.toml", 'task = "pkg.mine"')
    assert task.find(folder=inner) == "pkg.mine"
    monkeypatch.setenv("LANDSCAPE_TASK", "from_environment.py")
    assert task.find(folder=inner) == "from_environment.py"
    assert task.find("option.py", folder=inner) == "option.py"


def test_a_project_file_without_our_table_is_passed_over(tmp_path: Path) -> None:
    _write(tmp_path / "landscape.toml", '[tool.landscape]\ncheckpoint = "a.pt"')
    _write(tmp_path / "inner" / "pyproject.toml", '[project]\nname = "x"')
    table, home = task.project_table(tmp_path / "inner")
    assert table == {"checkpoint": "a.pt"}
    assert home == tmp_path


def test_no_task_at_all_says_where_one_may_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no task found: pass --task FILE\.py, set LANDSCAPE_TASK"):
        task.find(folder=tmp_path)


def test_a_project_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "landscape.toml", "task = ")
    with pytest.raises(UserError, match=r"landscape\.toml is not valid TOML"):
        task.find(folder=tmp_path)


def test_no_task_is_looked_for_beside_the_checkpoint(tmp_path: Path) -> None:
    # A downloaded folder must not run code: nothing but the working folder counts.
    _write(tmp_path / "download" / "landscape_task.py")
    with pytest.raises(UserError, match="no task found"):
        task.find()
    assert os.listdir(tmp_path) == ["download"]


def _failing(net: nn.Module, batch: Any) -> torch.Tensor:
    return batch["nothing"]


def test_an_accident_in_the_task_is_one_sentence_with_its_place() -> None:
    f = objective(as_task(model=mlp, data=lambda: torch.ones(3, 4), loss=_failing))
    text = r"loss\(\) of the test's task failed: \w+: .*\(test_task\.py, line \d+\); --debug"
    with pytest.raises(UserError, match=text) as caught:
        f.loss(f.theta())
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_running_out_of_memory_is_not_blamed_on_the_task() -> None:
    def data() -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    bad = as_task(model=mlp, data=data, loss=cross_entropy)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
        bad.data()
