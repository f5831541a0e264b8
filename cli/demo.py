"""`landscape demo`: networks trained on real data, and the tool run on them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from .options import Directions, Output, Quiet, SetUp

if TYPE_CHECKING:
    from torch import nn

EPOCHS = 20
CHECKPOINTS = {"ckpt.pt": 0, "a.pt": 1, "b.pt": 2}  # and the seed of each
TABLE = 'task = "landscape_task.py"\ncheckpoint = "ckpt.pt"\n'
NEXT = (
    "landscape surface ckpt.pt",
    "landscape line a.pt --direction-to b.pt",
    "landscape plot ckpt.surface.h5 --style 3d -o ckpt.3d.png",
    "landscape show ckpt.surface.h5",
    "landscape check ckpt.pt",
)


def demo(
    folder: Annotated[Path, Argument(help="Where to put it; made if it is not there.")] = Path(
        "landscape-demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Train three small networks on handwritten digits and draw a surface.

    Writes ckpt.pt, a.pt, b.pt, landscape_task.py and landscape.toml; takes about a minute.

    Example: `landscape demo`
    """
    import os

    from rich.console import Console
    from rich.progress import Progress

    from landscape.errors import UserError

    from .surface import surface

    console = Console(stderr=True, quiet=quiet, highlight=False)
    try:
        from . import demo_task
    except ImportError as error:
        raise UserError(
            "the demo needs scikit-learn: pip install 'landscape-toolkit[demo]'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(demo_task.__file__).read_text(encoding="utf-8")
    (folder / "landscape_task.py").write_text(source, encoding="utf-8")
    (folder / "landscape.toml").write_text(TABLE, encoding="utf-8")
    with Progress(console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("training three networks", total=EPOCHS * len(CHECKPOINTS))
        for name, seed in CHECKPOINTS.items():
            accuracy = train(folder / name, seed, lambda: bar.advance(task))
            console.print(f"{folder / name}: {100 * accuracy:.1f} % of held-out digits right")
    os.chdir(folder)
    surface(None, SetUp(), Directions(), Output(overwrite=True, quiet=quiet))
    console.print(f"\nThe picture is {folder / 'ckpt.surface.png'}. Try next:\n\n  cd {folder}")
    for line in NEXT:
        console.print(f"  {line}")


def train(path: Path, seed: int, advance: Callable[[], Any]) -> float:
    """Train the demo's network, save its state dict, and return its held-out accuracy.

    SGD with Nesterov momentum .9, one cycle up to a rate of .1, weight decay 5e-4, batches of 64.
    """
    import torch

    from . import demo_task

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = demo_task.model()
    images, labels = demo_task.data("train")
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    batches = -(-len(labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * batches)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels), generator=generator).split(64):
            optimizer.zero_grad()
            demo_task.loss(net, (images[chosen], labels[chosen])).mean().backward()
            optimizer.step()
            schedule.step()
        advance()
    torch.save(net.state_dict(), path)
    return _accuracy(net.eval())


def _accuracy(net: "nn.Module") -> float:
    import torch

    from . import demo_task

    with torch.inference_mode():
        right = demo_task.metrics(net, demo_task.data("val"))["accuracy"]
    return float(right.float().mean())
