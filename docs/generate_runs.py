"""Write docs/commands/*.md: every command run on the demo, `python docs/generate_runs.py`.

Each page holds the help of a command, a run of it with what it printed, and its picture. Takes
about five minutes on two cores; run it when a command prints something else than its page shows.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import typer
from PIL import Image

from landscape.cli import app, demo_task

DOCS = Path(__file__).parent
STEPS = 5  # checkpoints of a training, for track and trajectory

# In this order, for some take what others wrote; the picture that a run leaves, if any.
RUNS = {
    "demo": ("landscape demo .", "ckpt.surface.png"),
    "init": ("landscape init my_task.py --checkpoint ckpt.pt", ""),
    "check": ("landscape check ckpt.pt", ""),
    "selftest": ("landscape selftest --device cpu", ""),
    "surface": ("landscape surface a.pt", "a.surface.png"),
    "line": ("landscape line a.pt --direction-to b.pt", "a.line.png"),
    "hessian": ("landscape hessian ckpt.pt --count 3 --density", "ckpt.hessian.png"),
    "track": (
        "landscape track run/ckpt_0.pt run/ckpt_20.pt run/ckpt_40.pt run/ckpt_60.pt run/ckpt_80.pt "
        "-o run.track.h5",
        "run.track.png",
    ),
    "sharpness": ("landscape sharpness ckpt.pt --rho 0.05 --examples 512", "ckpt.sharpness.png"),
    "connect": ("landscape connect a.pt b.pt", "a-b.connect.png"),
    "merge": ("landscape merge a.pt b.pt -o m.pt", "m.merge.png"),
    "trajectory": (
        "landscape trajectory run/ckpt_0.pt run/ckpt_20.pt run/ckpt_40.pt run/ckpt_60.pt "
        "run/ckpt_80.pt -o run.trajectory.h5",
        "run.trajectory.png",
    ),
    "race": (
        "landscape race rosenbrock --optimizers sgd,momentum,adam,muon",
        "rosenbrock.race.png",
    ),
    "gate": ("landscape gate a.pt --baseline b.pt --exit-zero", ""),
    "show": ("landscape show ckpt.surface.h5", ""),
    "plot": ("landscape plot ckpt.surface.h5 --style 3d -o ckpt.3d.png", "ckpt.3d.png"),
    "compare": ("landscape compare ckpt.surface.h5 a.surface.h5", "compare.png"),
    "animate": (
        "landscape surface run/ckpt_0.pt run/ckpt_20.pt run/ckpt_40.pt run/ckpt_60.pt "
        "run/ckpt_80.pt --directions-at run/ckpt_80.pt --resolution 31x31 -q\n"
        "landscape animate ckpt_0.surface.h5 ckpt_20.surface.h5 ckpt_40.surface.h5 "
        "ckpt_60.surface.h5 ckpt_80.surface.h5 -o training.gif",
        "training.gif",
    ),
    "report": ("landscape report ckpt.surface.h5 a.surface.h5 -o report.html", ""),
    "export": ("landscape export ckpt.surface.h5 -o ckpt.vts", ""),
    "import": ("landscape import old_surface.h5", ""),
}
# Of other pages: the command, and the picture that it leaves.
PICTURES = {
    "convexity": (
        "landscape surface ckpt.pt --curvature --examples 512 -o convexity.h5",
        "convexity.png",
    ),
}


def page(name: str, run: str, printed: str, picture: str) -> str:
    """The page of one command.

    Args:
        name: of the command.
        run: the command line.
        printed: what it printed.
        picture: path of the picture from the page; empty for none.
    """
    group: Any = typer.main.get_command(app)
    text = re.sub(r"\n*Example: `.*`\s*$", "", group.commands[name].help.strip())
    parts = [
        f"# landscape {name}",
        "<!-- Written by docs/generate_runs.py: do not edit. -->",
        text,
        f"```sh\n{run}\n```",
        f"```text\n{printed}\n```" if printed else "",
        f"![The picture of this run]({picture})" if picture else "",
        f"All arguments and options: [command line](../cli.md#landscape-{name}).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def train(folder: Path) -> None:
    """Checkpoints of a training of the demo's network, with the state of its optimiser."""
    torch.manual_seed(3)
    net, batch = demo_task.model(), demo_task.data()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    folder.mkdir()
    for step in range(20 * STEPS):
        if step % 20 == 0:
            state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, folder / f"ckpt_{step}.pt")
        optimizer.zero_grad()
        demo_task.loss(net, batch).mean().backward()
        optimizer.step()


def old_surface(path: Path) -> None:
    """A bowl, in a file as loss-landscape leaves it."""
    axis = np.linspace(-1.0, 1.0, 11)
    x, y = np.meshgrid(axis, axis)
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = file["ycoordinates"] = axis
        file["train_loss"], file["train_acc"] = x**2 + 2 * y**2, 100 - 10 * x**2


def printed_by(run: str, folder: Path) -> str:
    """What command lines print, on a terminal of 88 columns that is none."""
    return "\n".join(_printed_by(line, folder) for line in run.splitlines())


def _printed_by(run: str, folder: Path) -> str:
    program, *arguments = shlex.split(run)
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "88", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{run}: {done.stdout}")
    lines = [line.rstrip() for line in done.stdout.replace("\r", "\n").splitlines()]
    return textwrap.dedent("\n".join(lines).replace(str(folder), ".")).strip("\n")


def main(chosen: list[str]) -> None:
    """Run the commands and draw the pictures `chosen`, or all, in a fresh folder."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        train(folder / "run")
        old_surface(folder / "old_surface.h5")
        for name, (run, picture) in RUNS.items():
            if chosen and name not in {"demo", *chosen}:
                continue
            printed = printed_by(run, folder)
            shown = f"../images/{image(name, folder / picture)}" if picture else ""
            target = DOCS / "commands" / f"{name}.md"
            target.write_text(page(name, run, printed, shown), encoding="utf-8")
            print(target)
        for name, (run, picture) in PICTURES.items():
            if not chosen or name in chosen:
                printed_by(run, folder)
                print(DOCS / "images" / image(name, folder / picture))


def image(name: str, picture: Path) -> str:
    """The name of a run's picture among those of the pages, where it is put in few colours."""
    target = DOCS / "images" / f"run-{name}{picture.suffix}"
    if picture.suffix == ".gif":
        target.write_bytes(picture.read_bytes())
    else:
        with Image.open(picture) as full:
            full.convert("RGB").quantize(128).save(target, optimize=True)
    return target.name


if __name__ == "__main__":
    main(sys.argv[1:])
