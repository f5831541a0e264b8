"""A terminal in a folder with a small project: what the tests of the command line share."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

# As a user writes it. PAUSE makes an evaluation long enough to be killed in the middle.
TASK = """
import os, time
import torch
import torch.nn.functional as F
from torch import nn

def model(width=12):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 10)
    )

def data(split="train"):
    generator = torch.Generator().manual_seed(0 if split == "train" else 1)
    labels = torch.randint(10, (96,), generator=generator)
    images = torch.randn(96, 8, 8, generator=generator)
    images[torch.arange(96), labels % 8] += 2.0
    return images, labels

def loss(net, batch):
    images, labels = batch
    time.sleep(float(os.environ.get("PAUSE", 0)))
    return F.cross_entropy(net(images).double(), labels, reduction="none")

def metrics(net, batch):
    images, labels = batch
    return {"accuracy": (net(images).argmax(-1) == labels).float()}
"""
TABLE = 'task = "landscape_task.py"\ncheckpoint = "ckpt.pt"\n'


def app():
    """The application, found as the console script finds it."""
    (script,) = entry_points(group="console_scripts", name="landscape")
    return script.load()


def network(width: int = 12, seed: int = 0) -> nn.Module:
    """The network of TASK, a few steps away from its initialisation."""
    namespace: dict = {}
    exec(TASK, namespace)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = namespace["model"](width)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        namespace["loss"](net, namespace["data"]()).mean().backward()
        optimizer.step()
    return net.eval()


def build(folder: Path) -> None:
    """A task, a table, and one network in the formats that people have."""
    (folder / "landscape_task.py").write_text(TASK, encoding="utf-8")
    (folder / "landscape.toml").write_text(TABLE, encoding="utf-8")
    weights = network().state_dict()
    torch.save(weights, folder / "ckpt.pt")
    torch.save({"epoch": 3, "model_state_dict": weights}, folder / "wrapped.pt")
    lightning = {
        "pytorch-lightning_version": "2.4.0",
        "epoch": 3,
        "state_dict": {f"model.{name}": tensor for name, tensor in weights.items()},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.5}]}],
        "hyper_parameters": {"lr": 0.5},
    }
    torch.save(lightning, folder / "lightning.ckpt")
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    torch.save(network(seed=1).state_dict(), folder / "other.pt")
    torch.save(network(seed=2).state_dict(), folder / "third.pt")


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one sentence of an error, once it is known to be the only one."""
        assert "Traceback" not in self.err
        said = [line for line in self.err.splitlines() if line and not line.startswith("note: ")]
        if len(said) == 2 and said[1].startswith("(`landscape check "):
            said.pop()
        assert len(said) == 1, self.err
        assert said[0].startswith("error: "), self.err
        return said[0].removeprefix("error: ")

    @property
    def text(self) -> str:
        """Help or a usage error without the frames and the line breaks of its panels."""
        return re.sub(r"[\s│╭╮╰╯─]+", " ", self.out + self.err)


@dataclass
class Terminal:
    """Runs commands in `folder`, in this process or in one of their own."""

    folder: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    def run(self, *arguments: str | Path) -> Result:
        """A command in this process."""
        home, path = Path.cwd(), list(sys.path)
        os.chdir(self.folder)
        try:
            done = CliRunner().invoke(app(), list(map(str, arguments)), prog_name="landscape")
        finally:
            os.chdir(home)
            sys.path[:] = path
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Result(done.exit_code, done.stdout, done.stderr)

    def start(self, *arguments: str | Path, pause: float = 0.0) -> subprocess.Popen:
        """A command in a process of its own; every loss of a batch takes `pause` seconds more."""
        process = subprocess.Popen(
            [Path(sys.executable).with_name("landscape"), *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PAUSE": str(pause)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen) -> Result:
        """The end of a process."""
        out, err = process.communicate(timeout=120)
        return Result(process.returncode, out, err)

    def launch(self, *arguments: str | Path, pause: float = 0.0) -> Result:
        """A command in a process of its own, to its end."""
        return self.finish(self.start(*arguments, pause=pause))

    def wait_for_records(self, output: str, count: int, process: subprocess.Popen) -> None:
        """Return as soon as a running command has written `count` evaluations to its journal."""
        journal = self.folder / f"{output}.journal"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if journal.exists() and journal.read_bytes().count(b"\n") > count:
                return
            if process.poll() is not None:
                pytest.fail(f"ended too early: {self.finish(process)}")
            time.sleep(0.01)
        pytest.fail(f"{journal} did not get {count} records")

    def network(self, width: int = 12, seed: int = 0) -> nn.Module:
        """The network of the task."""
        return network(width, seed)

    def files(self) -> dict[str, str]:
        """A digest of every file, to see that none has changed."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }

    def write(self, name: str, text: str) -> str:
        """A file of this text; returns its name."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return name

    def task(self, name: str, *replaced: tuple[str, str]) -> str:
        """The task with parts of it replaced, under another name."""
        text = TASK
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        return self.write(name, text)


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in a fresh copy of the project, which is built once."""
    project = tmp_path_factory.getbasetemp() / "a small project"
    if not project.exists():
        project.mkdir()
        build(project)
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    terminal = Terminal(folder)
    yield terminal
    for process in terminal.started:
        process.kill()
        process.communicate()
