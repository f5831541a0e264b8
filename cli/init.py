"""`landscape init`: a commented task file to start from."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import TrustPickle, WeightsKey

DEFAULT = "landscape_task.py"
SKELETON = '''"""What `landscape` evaluates: model, data, and a loss with one value per example."""

import torch
import torch.nn.functional as F


def model():
    """The network, freshly built; the checkpoint's tensors are loaded into it.

    To load the file yourself, write `def model(checkpoint):` and return the network with its
    weights in it.
    """
{model}


def data(split="val"):
    """The examples: finite, not shuffled, the same at every call.

    A Dataset, an unshuffled DataLoader, a tuple or dict of tensors, or a list of batches.
    `landscape surface ckpt.pt --split train` calls data(split="train").
    """
    raise RuntimeError("fill in data()")


def loss(net, batch):
    """One value per example, shape (B,), or several, (B, ...): no mean over the batch here."""
    x, y = batch
    return F.cross_entropy(net(x).double(), y, reduction="none")


# For batches (x, y), a standard loss may be given by name instead: cross_entropy or nll, with
# accuracy; binary_cross_entropy_with_logits; mse (mean over outputs), half_squared_error (half
# their sum), l1, huber:
# loss = "cross_entropy"

# Optional. Values per example, drawn beside the loss:
# def metrics(net, batch):
#     x, y = batch
#     return {{"accuracy": (net(x).argmax(-1) == y).float()}}

# Optional. Examples evaluated at once, for data that do not come in batches:
# batch_size = 256

# Optional. The parameters that move, if not all that have requires_grad:
# def parameters(net):
#     return [name for name, _ in net.named_parameters() if "adapter" in name]

# Optional. The loss in two steps, for the Gauss-Newton matrix where loss() does not call net(...)
# exactly once; tensors, alone or in lists, tuples and dicts, go from one to the other:
# def outputs(net, batch):
#     return net.head(net.encoder(batch[0]))
#
# def output_loss(outputs, batch):
#     return F.cross_entropy(outputs.double(), batch[1], reduction="none")
'''
NO_MODEL = '    raise RuntimeError("fill in model(): return mynet.Net(), say")'


def init(
    path: Annotated[Path, Argument(metavar="FILE.py", help="The file to write.")] = Path(DEFAULT),
    checkpoint: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Read this checkpoint, list its tensors and propose the model's first lines.",
        ),
    ] = None,
    weights_key: WeightsKey = None,
    trust_pickle: TrustPickle = False,
) -> None:
    """Write a commented task file for a network of your own.

    Example: `landscape init --checkpoint ckpt.pt`
    """
    from rich.console import Console

    from landscape.errors import UserError

    if path.exists():
        raise UserError(f"{path} exists already and is left as it is: name another file")
    body = NO_MODEL if checkpoint is None else _proposal(checkpoint, weights_key, trust_pickle)
    try:
        path.write_text(SKELETON.format(model=body), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): name another file") from error
    task = "" if path == Path(DEFAULT) else f" --task {path}"
    note = f"fill in {path}, then run `landscape check {checkpoint or 'CKPT'}{task}`"
    Console(stderr=True).print(note, highlight=False, markup=False, soft_wrap=True)
    print(path)


def _proposal(path: Path, weights_key: str | None, trust_pickle: bool) -> str:
    """The tensors of a checkpoint as comments, and the shape of what the model returns."""
    from landscape import checkpoint

    file = checkpoint.read(path, weights_key=weights_key, trust_pickle=trust_pickle)
    tensors = list(file.tensors.items())
    said = [f"{path.name} holds {len(tensors)} tensors", *file.notes]
    said += [f"  {name}  {tuple(tensor.shape)}" for name, tensor in tensors[:40]]
    if len(tensors) > 40:
        said.append(f"  ... and {len(tensors) - 40} more")
    matrices = [t for _, t in tensors if t.ndim >= 2]
    if matrices:
        inputs, outputs = matrices[0].shape[1], matrices[-1].shape[0]
        said.append(f"(its first matrix takes {inputs} inputs, its last gives {outputs} outputs)")
    # Escaped, for a name with a line break in it would be a line of code in the user's task.
    lines = [f"    # {text.encode('unicode_escape').decode('ascii')}" for text in said]
    return "\n".join([*lines, "    from mynet import Net", "", "    return Net()"])
