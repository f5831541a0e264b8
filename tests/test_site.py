"""The documentation as a site: it builds, its tasks run, and what it says of errors is so."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
import typer

pytest_plugins = ["keyboard"]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(page: str) -> dict[str, str]:
    """The Python of a page, by the heading above it."""
    sections = (DOCS / page).read_text(encoding="utf-8").split("\n## ")[1:]
    parts = {section.partition("\n")[0]: section.split("```python\n") for section in sections}
    return {name: part[1].partition("```")[0] for name, part in parts.items() if len(part) > 1}


TASKS = blocks("tasks.md")


def save_data(folder: Path) -> None:
    """The files that the tasks of the page load."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "images-val": draw(40, 1, 8, 8),
        "labels-val": torch.arange(40) % 10,
        "tokens": torch.randint(0, 50, (40, 13), generator=generator),
        "features": draw(40, 5),
        "targets": draw(40, 2),
        "positions": draw(40, 4, 3),
        "energies": draw(40),
        "forces": draw(40, 4, 3),
        "views": draw(2, 40, 16),
    }
    for name, tensor in tensors.items():
        torch.save(tensor, folder / f"{name}.pt")


def test_the_page_of_tasks_has_the_kinds_that_people_ask_for():
    assert len(TASKS) == 7


@pytest.mark.parametrize("heading", TASKS)
def test_a_task_of_the_page_runs_as_it_stands(terminal, heading):
    terminal.write("landscape_task.py", TASKS[heading])
    save_data(terminal.folder)
    namespace: dict = {}
    exec(TASKS[heading], namespace)
    torch.save(namespace["model"]().state_dict(), terminal.folder / "ckpt.pt")
    result = terminal.run("check", "ckpt.pt")
    assert result.code == 0, result.err
    assert "does not work" not in result.text  # the Hessian product
    hessian = ("hessian", "ckpt.pt", "--count", "1", "--which", "largest", "--probes", "0")
    result = terminal.run(*hessian, "--tolerance", "0.1", "--no-plot", "-q")
    assert result.code == 0, result.err


def test_the_page_of_errors_quotes_messages_that_exist():
    said = set()
    for path in [*ROOT.glob("landscape/*.py"), *ROOT.glob("cli/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            said.add("".join(str(p.value) for p in parts if isinstance(p, ast.Constant)))
    quoted = re.findall(r"^### (.+)$", (DOCS / "errors.md").read_text(encoding="utf-8"), re.M)
    assert len(quoted) > 15
    for message in quoted:
        assert any(message in text for text in said), message


def test_every_command_has_a_page_with_its_help_and_a_run():
    spec = importlib.util.spec_from_file_location("generate_runs", DOCS / "generate_runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (script,) = entry_points(group="console_scripts", name="landscape")
    assert list(module.RUNS) == list(typer.main.get_command(script.load()).commands)
    for name, (run, picture) in module.RUNS.items():
        text = (DOCS / "commands" / f"{name}.md").read_text(encoding="utf-8")
        printed = text.partition("```text\n")[2].partition("\n```")[0]
        shown = f"../images/run-{name}{Path(picture).suffix}" if picture else ""
        assert text == module.page(name, run, printed, shown), "python docs/generate_runs.py"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M))
    assert listed == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link(tmp_path):
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings")
    for name in ("docs", "landscape"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    build = [Path(sys.executable).with_name("zensical"), "build", "--strict"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    library = (tmp_path / "site" / "library" / "index.html").read_text(encoding="utf-8")
    assert 'id="landscape.surface.evaluate"' in library
    for page in (tmp_path / "site").rglob("*.html"):  # nothing is asked of a server
        loaded = re.findall(
            r'(?:src|rel="stylesheet" href)="(https?:[^"]+)"', page.read_text("utf-8")
        )
        assert loaded == []
