"""Two ranks of one thread against one: a surface, an eigenvalue search, and what they send.

Both are timed by turns in the same two processes: together, and rank 0 alone while the other
sleeps. By the clock, the efficiency is the time of one rank over twice that of two, medians of
turns: on a machine that others use it tells of them too. By CPU time the busier rank stands for
both, so that other work does not count, but neither does waiting for a message. Ten minutes on two
idle cores:

    python benchmarks/scale.py

What products would cost on many GPUs, on paper:

    python benchmarks/scale.py --model
"""

import os

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}

import contextlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from networks import NETWORKS, demo_task, fitted, images, objective, resnet20, trained

from landscape import directions, lanczos, process_group, ranks, surface
from landscape.batches import Batches
from landscape.cli.process import keep_freed_memory
from landscape.objective import Objective

TURNS = 3
BATCHES = 20  # ten a rank
IMAGES = 160  # of 3x32x32
PRODUCTS = 40

# Of an H100 node (NVIDIA's data sheets), and what of it is commonly reached.
FLOPS = 67e12 * 0.5  # single precision
MEMORY = 80e9  # bytes
NODE = 8  # GPUs joined by NVLink
INSIDE, BETWEEN = 450e9 * 0.8, 50e9 * 0.8  # bytes per second and GPU, one way
LATENCY = 10e-6  # seconds for a step between nodes, and about that within one
GRADIENTS = 2.6  # that a product with a kept graph costs: benchmarks/hessian.py
BASIS = 41  # vectors of an eigenvalue search, by default


def main() -> None:
    if "--model" in sys.argv:
        model()
    elif "RANK" in os.environ:
        race()
    else:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        subprocess.run([*launcher, "--nproc-per-node", "2", __file__], check=True)


def race() -> None:
    """Both analyses of two networks, both ways, by turns."""
    keep_freed_memory()
    process_group.start(torch.device("cpu"))
    digits, pictures = demo_task.data("train"), images(IMAGES)
    compare("CNN with BatchNorm", trained(NETWORKS["CNN with BatchNorm"]), digits)
    compare("ResNet-20", fitted(resnet20, pictures, epochs=2, size=16), pictures)
    process_group.finish()


def compare(name: str, net: torch.nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The table of one network."""
    size = -(-len(data[1]) // BATCHES)
    f = objective(net).over(Batches(lambda: data, batch_size=size))
    theta = f.theta()
    tell(f"\n{name}, {theta.numel():,} parameters, {len(data[1])} examples in batches of {size}")
    tell(f"{'':24s}{'':>14s}{'one rank':>10s}{'two ranks':>10s}{'efficiency':>12s}")
    works = {
        "surface, batches shared": lambda: plane(f, theta, apart=False),
        "surface, points shared": lambda: plane(f, theta, apart=True),
        "eigenvalues": lambda: eigenvalues(f, theta),
    }
    for what, work in works.items():
        timed(work)
        turns = [(timed(work, apart=True), timed(work)) for _ in range(TURNS)]
        for kind, how in enumerate(("by the clock", "by CPU time")):
            one, two = (statistics.median(turn[i][kind] for turn in turns) for i in (0, 1))
            share = f"{100 * one / (2 * two):.0f} %"
            tell(f"{what:24s}{how:>14s}{one:8.2f} s{two:8.2f} s{share:>12s}")
    few, many = (sent(f, theta, products) for products in (10, 20))
    tell(f"a rank sends {(many - few) // 10:,} bytes for a product of {4 * theta.numel():,} bytes")


def plane(f: Objective, theta: torch.Tensor, *, apart: bool) -> None:
    """81 points of a surface, as a tolerance of 1 % takes them; `apart` shares out points."""
    generator = torch.Generator().manual_seed(0)
    pair = [directions.random(f.space, theta, generator) for _ in range(2)]
    axes = [surface.axis(-1, 1, 9)] * 2
    at = surface.along(f, theta, pair)
    for _ in surface.sample(at, axes, tolerance=0.0, apart=apart):
        pass


def eigenvalues(f: Objective, theta: torch.Tensor, products: int = PRODUCTS) -> None:
    """A search for the five largest and smallest, cut off after so many products."""
    search = lanczos.Search(
        f.hessian(theta),
        torch.zeros_like(theta),
        generator=torch.Generator().manual_seed(0),
        max_products=products,
        tolerance=1e-12,
    )
    for _ in search:
        pass


def timed(work: Callable[[], None], *, apart: bool = False) -> tuple[float, float]:
    """Seconds by the clock, and of CPU time of the busier rank; `apart`, of rank 0 alone."""
    dist.barrier()
    clock, cpu = time.perf_counter(), time.process_time()
    if not apart:
        work()
    elif ranks.first():
        with ranks.alone():
            work()
    found = time.perf_counter() - clock, time.process_time() - cpu
    every = ranks.of_all(found)
    return every[0][0], max(cpu for _, cpu in every) if not apart else every[0][1]


def sent(f: Objective, theta: torch.Tensor, products: int) -> int:
    """Bytes that a rank has had summed in a search of so many products."""
    with traffic() as counted:
        eigenvalues(f, theta, products)
    return sum(counted)


@contextlib.contextmanager
def traffic() -> Iterator[list[int]]:
    """The size of each tensor that is summed meanwhile."""
    counted: list[int] = []
    reduce = dist.all_reduce

    def all_reduce(tensor: torch.Tensor, *more: Any, **options: Any) -> Any:
        counted.append(tensor.nbytes)
        return reduce(tensor, *more, **options)

    dist.all_reduce = all_reduce
    try:
        yield counted
    finally:
        dist.all_reduce = reduce


def tell(text: str) -> None:
    if ranks.first():
        print(text, flush=True)


def model() -> None:
    """Efficiency of products of a transformer with vectors of P numbers, and what holds the basis.

    6 P flops a token for a gradient; the vector is summed within a node, over nodes, and within
    again, in rings. Nothing overlaps, as in the code. P cancels out but for the latency.
    """
    counts = (8, 64, 512, 4096)
    print("| parameters | tokens on a GPU | flops | bytes | " + " | ".join(map(str, counts)) + " |")
    print("|---|---:|---:|---:|" + "---:|" * len(counts))
    for size in (1e8, 1e9, 7e9):
        for tokens in (1 << 10, 1 << 13, 1 << 16):
            flops = GRADIENTS * 6 * size * tokens
            compute = flops / FLOPS
            shares = [compute / (compute + summing(4 * size, count)) for count in counts]
            cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
            sizes = f"{size / 1e6:,.0f} M | {tokens:,} | {flops:.1e} | {4 * size / 1e9:g} GB"
            print(f"| {sizes} | {cells} |")
    print()
    for count in counts[1:]:
        per_float = summing(4.0, count, latency=0.0)
        least = 9 * per_float * FLOPS / (GRADIENTS * 6)
        print(f"90 % on {count} GPUs takes {least:,.0f} tokens on each")
    most = MEMORY / 4 / (BASIS + 4) / 1e6
    print(f"{BASIS} vectors of the basis and 4 more fill a GPU at {most:,.0f} M parameters")


def summing(size: float, count: int, *, latency: float = LATENCY) -> float:
    """Seconds to sum `size` bytes over `count` GPUs."""
    inside = min(count, NODE)
    nodes = math.ceil(count / NODE)
    within = 2 * (inside - 1) / inside * size / INSIDE + 2 * (inside - 1) * latency
    over = 2 * (nodes - 1) / nodes * size / inside / BETWEEN + 2 * (nodes - 1) * latency
    return within + over


if __name__ == "__main__":
    main()
