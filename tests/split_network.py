"""A network split over processes: what each of them measures, for `test_sharded.py`.

Run by the launcher of torch it leaves what the first process has found in a file; called without
a process group it measures the same of the whole network.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from oracles import Operations, as_task, snapshot
from torch import nn
from torch.distributed.checkpoint import save
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from landscape import (
    directions,
    lanczos,
    process_group,
    ranks,
    rematerialisation,
    sharded,
    slices,
    space,
)
from landscape.objective import MATRICES, Objective

CPU = torch.device("cpu")
EXAMPLES, BATCH = 15, 6  # three batches, the last of three examples


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift, self.norm = nn.Conv2d(6, 7, 3, padding=1), nn.BatchNorm2d(7)
        self.fall = nn.Conv2d(7, 6, 3, padding=1, bias=False)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        x = x + self.fall(F.gelu(self.norm(self.lift(x))))
        z = x.flatten(2).transpose(1, 2)
        z = z + self.attention(z, z, z, need_weights=False)[0]
        return z.transpose(1, 2).view_as(x)


class Net(nn.Module):
    """With a scalar weight, frozen and tied ones, and one that no module's forward looks at."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.scale = nn.Conv2d(1, 6, 3, padding=1), nn.Parameter(torch.tensor(1.3))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.phase = nn.Parameter(torch.randn(6, 1, 1, 2))  # complex numbers, in their parts
        self.head, self.out = nn.Linear(6, 5), nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5, bias=False)
        self.tied.weight = self.out.weight
        self.frozen = nn.Linear(5, 5).requires_grad_(False)

    def forward(self, x):
        x = (self.first(x) * self.scale * torch.view_as_complex(self.phase)).real
        for block in self.blocks:
            x = block(x)
        z = self.frozen(F.linear(x.mean((2, 3)), self.head.weight, self.head.bias).tanh())
        return self.tied(self.out(z).tanh())


def loss(net, batch):
    """Of a classifier."""
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def decayed(net, batch):
    """With a penalty that asks the network for all of its weights."""
    return loss(net, batch) + 0.01 * sum(weight.square().sum() for weight in net.parameters())


class Wide(nn.Module):
    """Nearly all of whose memory is weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(128, 128) for _ in range(12))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return x


def problem(net, batches, of_loss, dtype, split):
    """The objective of a network, which is split if there are several processes."""
    task = as_task(model=lambda: net, data=lambda: batches, loss=of_loss)
    where, evaluation = space.trainable(net, dtype=dtype, device=CPU), None
    if split:
        where, evaluation = slices.space(where), sharded.ShardedEvaluation(task, net)
    return Objective(task, net, where, batches, l2=0.1, evaluation=evaluation)


def data(dtype):
    """Batches of images and labels."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(EXAMPLES, 1, 5, 5, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.randint(5, (EXAMPLES,), generator=generator)
    return [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, EXAMPLES, BATCH)]


def measured(dtype):
    """What is compared, by name; vectors are whole."""
    net = Net().to(dtype)
    before = snapshot(net)
    objective = problem(net, data(dtype), loss, dtype, ranks.count() > 1)
    where, theta = objective.space, objective.theta()

    def whole(v):
        assert v.shape == (where.length,)
        return torch.cat(list(where.pieces_of(v)))

    generator = torch.Generator().manual_seed(1)
    found = {"theta": whole(theta)}
    drawn = {
        rule: directions.random(where, theta, generator, normalisation=rule, include_1d=True)
        for rule in directions.NORMALISATIONS
    }
    found |= {f"direction {rule}": whole(v) for rule, v in drawn.items()}
    apart = directions.orthogonal(drawn["layer"], theta, where)
    found["orthogonal"] = whole(apart)
    point = theta + 0.1 * drawn["filter"]
    estimate = objective.evaluate(point)["loss"]
    found["loss"] = torch.tensor([estimate.mean, estimate.stderr])
    found["gradient"] = whole(objective.gradient(point))
    other = problem(net, data(dtype), decayed, dtype, ranks.count() > 1)
    found["gradient of all"] = whole(other.gradient(point))
    v = lanczos.gaussian(theta, generator, where)
    found["gaussian"] = whole(v)
    found["product of all"] = whole(other.hessian(point)(v))
    kinds = [(kind, None) for kind in MATRICES] if dtype == torch.float64 else []
    for kind, memory in [*kinds, ("hessian", 0)]:
        product = objective.matrix(kind, theta, memory=memory)
        name = f"{kind} {memory}"
        found[name], found[f"{name}, once more"] = (whole(product(v)) for _ in range(2))
        assert product.kept == (0 if memory == 0 else -(-3 // ranks.count()))
    objective.evaluation.blocks = rematerialisation.blocks(net)
    found["activations again"] = whole(objective.hessian(theta)(v))
    assert snapshot(net) == before
    return found


def eigenvalues(dtype):
    """By Lanczos, of the Hessian at the network."""
    objective = problem(Net().to(dtype), data(dtype), loss, dtype, ranks.count() > 1)
    theta = objective.theta()
    search = lanczos.Search(
        objective.hessian(theta),
        torch.zeros_like(theta),
        1,
        "largest",
        generator=torch.Generator().manual_seed(0),
        multiplicity=False,
        vectors=objective.space,
    )
    for _ in search:
        pass
    assert search.krylov.rows.shape[1] == objective.space.length
    return {"eigenvalues": torch.from_numpy(search.pairs().values.copy())}


def memory(*, split):
    """The most that tensors take at once, in units of the weights of a wide network.

    The thread on which processes meet lets go of what it has gathered a moment after it is there,
    on a busy machine two layers later: the least of several rounds is what the network needs.
    """
    rounds = [_memory(split) for _ in range(5)]
    return {name: min(taken[name] for taken in rounds) for name in rounds[0]}


def _memory(split):
    net = Wide()
    x = torch.ones(2, 128)

    def of_outputs(net, batch):
        return net(batch[0]).square().sum(1)

    objective = problem(net, [(x, x)] * 2, of_outputs, torch.float32, split)
    theta = objective.theta()
    product = objective.hessian(theta, memory=1 << 30)
    weights = sum(weight.nbytes for weight in net.parameters())
    assert theta.nbytes == (weights // 2 if split else weights)
    taken = {}
    for name, work in {
        "forward": lambda: objective.losses(theta),
        "gradient": lambda: objective.gradient(theta),
        "first product": lambda: product(theta),
        "product": lambda: product(theta),
    }.items():
        with Operations() as operations:
            work()
        taken[name] = operations.peak / weights
    return taken


def save_distributed(path):
    """The network of `keyboard`, as training with the FSDP of torch leaves it."""
    from keyboard import network  # which pytest wants to import itself

    net = network()
    fully_shard(net, mesh=init_device_mesh("cpu", (ranks.count(),)))
    save({"model": get_model_state_dict(net), "step": 3}, checkpoint_id=path)


def main(path):
    """Measure in this process of several, and keep what the first has found."""
    process_group.start(CPU)
    save_distributed(path.with_name("dcp"))
    found = {str(dtype): measured(dtype) for dtype in (torch.float64, torch.float32)}
    found["eigenvalues"] = eigenvalues(torch.float64)
    found["memory"] = memory(split=True)
    if ranks.first():
        torch.save(found, path)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
