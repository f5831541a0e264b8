"""The package as it is installed."""

import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_with_code_is_in_the_list_of_packages():
    listed = project()["tool"]["setuptools"]
    folders = {
        ".".join(
            ("landscape", *([top] if top == "cli" else []), *path.relative_to(ROOT / top).parts)
        )
        for top in ("landscape", "cli")
        for path in [ROOT / top, *(ROOT / top).rglob("*")]
        if path.is_dir() and next(path.glob("*.py"), None)
    }
    assert sorted(listed["packages"]) == sorted(folders)
    assert listed["package-dir"] == {"landscape": "landscape", "landscape.cli": "cli"}


def test_the_console_script_is_the_application():
    (script,) = entry_points(group="console_scripts", name="landscape")
    assert script.value == project()["project"]["scripts"]["landscape"] == "landscape.cli:app"
    assert script.dist.name == "landscape-toolkit"


def test_the_version_is_that_of_the_project(tmp_path):
    assert version("landscape-toolkit") == project()["project"]["version"]
    script = Path(sys.executable).with_name("landscape")
    for start in ([script], [sys.executable, "-m", "landscape.cli"]):
        done = subprocess.run(
            [*start, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"landscape {version('landscape-toolkit')}\n"


@pytest.mark.slow
def test_a_wheel_holds_one_package_and_nothing_else(tmp_path):
    quiet = {"check": True, "capture_output": True, "text": True}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    source = tmp_path / "source"  # a build leaves files beside its sources
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("landscape", "cli"):
        shutil.copytree(ROOT / name, source / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run([*pip, *build], **quiet)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"landscape"}
    assert {"landscape/py.typed", "landscape/cli/app.py", "landscape/surface.py"} <= set(names)
    assert {"landscape/page_parts/page.html", "landscape/page_parts/start.js"} <= set(names)

    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "-q", "--no-deps", wheel], **quiet)
    assert (tmp_path / "bare" / "bin" / "landscape").is_file()
    where = subprocess.run(
        [python, "-c", "import landscape; print(landscape.__file__)"], cwd=tmp_path, **quiet
    )
    assert where.stdout.startswith(str(tmp_path / "bare"))
    leak = subprocess.run(
        [python, "-c", "import cli"], cwd=tmp_path, capture_output=True, text=True
    )
    assert leak.returncode == 1
    assert "ModuleNotFoundError: No module named 'cli'" in leak.stderr
