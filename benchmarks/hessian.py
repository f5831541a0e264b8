"""Hessian products and eigenvalues: this tool, PyHessian, curvlinops, hessian-eigenthings.

What a product costs and holds in memory, on an MLP, a ResNet-20 and a GPT; one, five and ten
eigenvalues of MLPs against other tools, which get the loosest tolerance with an achieved error
of 1e-3; and shortcuts that were tried.
Seconds are those of all cores (CPU time), medians of interleaved runs. Read the ratios; five
minutes on two cores:

    pip install torch==2.13.0 '.[bench]'
    python benchmarks/hessian.py
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import functools
import importlib.util
import statistics
import time

import numpy as np
import peers
import shortcuts
import torch
from networks import GPT, demo_task, fitted, images, losses, mlp, objective, resnet20, text, trained

from landscape import lanczos
from landscape.cli.process import keep_freed_memory

ERROR = 1e-3  # to be achieved, relative, by every eigenvalue
LADDER = (1e-1, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)  # of other tools' tolerances
PRODUCTS = 30


def main() -> None:
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads")
    print("\nOne product, in gradients; peak memory in MiB\n" + PRODUCT_HEADER)
    digits = demo_task.data("train")
    product("MLP 64-256-256-10, 1347 digits", trained(mlp), digits, repeats=15)
    pictures = images(64)
    net = fitted(resnet20, pictures, epochs=2, size=16)
    product("ResNet-20, 64 images of 3x32x32", net, pictures, repeats=5)
    net = fitted(GPT, text(64), epochs=10, size=16)
    product("GPT of 3 blocks, 64 texts of 64", net, text(64), repeats=5)
    nets = [trained(mlp, seed=seed) for seed in range(3)]
    references = [peers.reference(net, digits, 10) for net in nets]
    for count in (10, 5, 1):
        eigenvalues(nets, digits, references, count)
    shortcuts.report()


def cpu(work):
    """What `work` returns, and its CPU time."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def peak(work):
    """The most that tensors made by `work` take at once, in MiB: from torch's own allocations."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(np.cumsum(changes)) / 2**20


PRODUCT_HEADER = (
    f"{'':33s}{'P':>8s}{'gradient':>10s}{'kept':>6s}{'rebuilt':>8s}{'plain':>7s}"
    f"{'30 kept, building':>18s}{'| kept':>8s}{'rebuilt':>8s}{'plain':>7s}"
)


def product(name, net, data, repeats) -> None:
    """One line: a product with kept and rebuilt graph, and with a plain double backward."""
    target = objective(net, data)
    theta = target.theta()
    v = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    along = list(target.space.unravel(v).values())
    unit, kept, rebuilt, plain = interleaved(
        repeats,
        lambda: target.gradient(theta),
        functools.partial(target.hessian(theta), v),
        functools.partial(target.hessian(theta, memory=0), v),
        lambda: double_backward(net, data, along),
    )
    whole = cpu(lambda: several(target.hessian(theta), v, PRODUCTS))[1] / PRODUCTS
    peaks = (
        peak(lambda: several(target.hessian(theta), v, 3)),
        peak(lambda: several(target.hessian(theta, memory=0), v, 3)),
        peak(lambda: double_backward(net, data, along)),
    )
    print(
        f"{name:33s}{len(theta):8d}{1e3 * unit:7.1f} ms{kept / unit:6.2f}{rebuilt / unit:8.2f}"
        f"{plain / unit:7.2f}{whole / unit:18.2f}  |{peaks[0]:5.0f}{peaks[1]:8.0f}{peaks[2]:7.0f}",
        flush=True,
    )


def interleaved(repeats, *works):
    """Median CPU time of each work, done by turns; the first turn warms up."""
    turns = [[cpu(work)[1] for work in works] for _ in range(repeats + 1)]
    return [statistics.median(times) for times in zip(*turns[1:], strict=True)]


def several(matrix, v, count) -> None:
    for _ in range(count):
        matrix(v)


def double_backward(net, data, along):
    """The product as most scripts have it; attention in the form that can be differentiated."""
    weights = list(net.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        slopes = torch.autograd.grad(losses(net, data).mean(), weights, create_graph=True)
        return torch.autograd.grad(slopes, weights, along)


def ours(target, count, seed, multiplicity):
    """Values by falling magnitude, and products: for the values, and for the check after."""
    theta = target.theta()
    search = lanczos.Search(
        target.hessian(theta),
        torch.zeros_like(theta),
        count,
        "magnitude",
        generator=torch.Generator().manual_seed(seed),
        multiplicity=multiplicity,
    )
    first = sum(not step.probes for step in search)
    pairs = search.pairs()
    return peers.ordered(pairs.values), first, pairs.products - first


def eigenvalues(nets, data, references, count) -> None:
    """One table: the leading eigenvalues of the MLPs, by each way."""
    rows = {}
    for seed, (net, reference) in enumerate(zip(nets, references, strict=True)):
        target, exact = objective(net, data), reference[:count]
        for name, (values, *spent) in entries(target, net, data, seed, exact):
            rows.setdefault(name, []).append((*spent, np.abs(values / exact - 1).max()))
    print(f"\n{count} eigenvalue(s) of {len(nets)} MLPs; ratios to the first line\n{TABLE_HEADER}")
    unit = np.array(next(iter(rows.values())))
    for name, found in rows.items():
        products, seconds, errors = np.array(found).T
        ratios = np.median(np.array(found)[:, :2] / unit[:, :2], axis=0)
        spent = f"{products.min():.0f}-{products.max():.0f}"
        print(
            f"{name:46s}{spent:>9s}{ratios[0]:7.1f}{np.median(seconds):9.2f}{ratios[1]:7.1f}"
            f"{errors.max():12.0e}",
            flush=True,
        )


TABLE_HEADER = f"{'':46s}{'products':>9s}{'ratio':>7s}{'seconds':>9s}{'ratio':>7s}{'error':>12s}"


def entries(target, net, data, seed, exact):
    """Each way to the eigenvalues, of the tools installed: values, products, CPU seconds."""
    count = len(exact)
    ours(target, count, seed, False)  # warm, as are tools whose first tolerance did not do
    (values, first, _), seconds = cpu(lambda: ours(target, count, seed, False))
    yield "landscape, --no-multiplicity-check", (values, first, seconds)
    (values, before, after), seconds = cpu(lambda: ours(target, count, seed, True))
    yield "landscape", (values, before + after, seconds)
    if importlib.util.find_spec("pyhessian"):
        yield "PyHessian 0.1", loosest(peers.pyhessian, net, data, seed, exact)
        (values, spent), seconds = cpu(lambda: peers.pyhessian(net, data, count, 1e-3, seed))
        yield "PyHessian 0.1, its own tolerance 1e-3", (values, spent, seconds)
    if importlib.util.find_spec("curvlinops"):
        yield "curvlinops 3.0.1 and eigsh", loosest(peers.curvlinops, net, data, seed, exact)
    if importlib.util.find_spec("hessian_eigenthings"):
        (values, spent), seconds = cpu(lambda: peers.eigenthings(net, data, count, first, seed))
        yield "hessian-eigenthings 1.0.0a5, told our steps", (values, spent, seconds)
        (values, spent), seconds = cpu(lambda: peers.eigenthings(net, data, count, None, seed))
        yield "hessian-eigenthings 1.0.0a5, its own steps", (values, spent, seconds)


def loosest(tool, net, data, seed, exact):
    """With the first tolerance of the ladder that achieves the error, as the right answer tells."""
    for tolerance in LADDER:
        work = functools.partial(tool, net, data, len(exact), tolerance, seed)
        (values, spent), seconds = cpu(work)
        if np.abs(values / exact - 1).max() <= ERROR:
            break
    return values, spent, seconds


if __name__ == "__main__":
    main()
