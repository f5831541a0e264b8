"""`landscape demo`: networks trained on real data, and the tool run on them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from .options import Output, Overwrite, Quiet, SetUp
from .options_plane import Directions

if TYPE_CHECKING:
    from torch import nn

EPOCHS = 20
CHECKPOINTS = {"ckpt.pt": 0, "a.pt": 1, "b.pt": 2}  # and the seed of each
TABLE = 'task = "landscape_task.py"\ncheckpoint = "ckpt.pt"\n'
NEXT = (
    "landscape surface ckpt.pt",
    "landscape line a.pt --direction-to b.pt",
    "landscape plot ckpt.surface.h5 --style 3d -o ckpt.3d.png",
    "landscape hessian ckpt.pt --count 10",
    "landscape connect a.pt b.pt",
    "landscape merge a.pt b.pt -o m.pt",
    "landscape gate a.pt --baseline b.pt",
    "landscape show ckpt.surface.h5",
    "landscape report ckpt.surface.h5 -o report.html",
    "landscape check ckpt.pt",
)


def demo(
    folder: Annotated[
        Path, Argument(metavar="FOLDER", help="Where to put it; made if it is not there.")
    ] = Path("landscape-demo"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train three small networks on handwritten digits and draw a surface.

    Writes ckpt.pt, a.pt, b.pt, landscape_task.py and landscape.toml; takes about a minute. What
    an earlier run finished in the same folder is kept.

    Example: `landscape demo`
    """
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
    source = Path(demo_task.__file__).read_text(encoding="utf-8")
    texts = {"landscape_task.py": source, "landscape.toml": TABLE}
    kept = [] if overwrite else _kept(folder, texts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write in {folder} ({error.strerror}): name another folder"
        ) from error
    with Progress(console=console, transient=True, disable=quiet) as bar:
        total = EPOCHS * (len(CHECKPOINTS) - len(kept))
        task = bar.add_task("training", total=total, visible=total > 0)
        for name, seed in CHECKPOINTS.items():
            if name in kept:
                console.print(f"{folder / name}: kept from an earlier run", soft_wrap=True)
                continue
            right = 100 * train(folder / name, seed, lambda: bar.advance(task))
            console.print(
                f"{folder / name}: {right:.1f} % of held-out digits right", soft_wrap=True
            )
    surface(
        SetUp(task=str(folder / "landscape_task.py")),
        Directions(),
        Output(output=folder / "ckpt.surface.h5", overwrite=overwrite, quiet=quiet),
        [folder / "ckpt.pt"],
    )
    console.print(
        f"\nThe picture is {folder / 'ckpt.surface.png'}. Try next:\n\n  cd {folder}",
        soft_wrap=True,
    )
    for line in NEXT:
        console.print(f"  {line}")


def _kept(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """The checkpoints of an earlier demo in the folder.

    Raises:
        UserError: files of these names are there which are no demo's.
    """
    from landscape.errors import UserError

    there = [name for name in (*texts, *CHECKPOINTS) if (folder / name).exists()]
    ours = [name for name, text in texts.items() if _holds(folder / name, text)]
    if len(ours) == len(texts):
        return [name for name in CHECKPOINTS if name in there]
    if foreign := [name for name in there if name not in ours]:
        raise UserError(
            f"{folder / foreign[0]} is there already and is not the demo's: name another folder, "
            "or pass --overwrite"
        )
    return []


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


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
    part = path.with_suffix(".part")  # a killed run leaves no half of a checkpoint
    torch.save(net.state_dict(), part)
    part.replace(path)
    return _accuracy(net.eval())


def _accuracy(net: "nn.Module") -> float:
    import torch

    from . import demo_task

    with torch.inference_mode():
        right = demo_task.metrics(net, demo_task.data("val"))["accuracy"]
    return float(right.float().mean())
