"""Hessian products and eigenvalues: this tool, PyHessian, curvlinops, hessian-eigenthings.

What a product costs and holds in memory, on two MLPs, a ResNet-20 and a GPT; one, five and ten
eigenvalues of MLPs against other tools, each with the loosest tolerance that achieves an error of
1e-3, and ours with its default too; and shortcuts that were tried.
Seconds are those of all cores (CPU time), medians of interleaved runs. Read the ratios; ten
minutes on two cores (README.md says what to install):

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
LADDER = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)  # of tolerances
DEFAULT = 1e-3  # tolerance of ours
PRODUCTS = 30
REPEATS = 3


def main() -> None:
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads")
    print("\nOne product, in gradients; peak memory in MiB\n" + PRODUCT_HEADER)
    digits = demo_task.data("train")
    for width in (128, 256):
        net = trained(functools.partial(mlp, width=width))
        product(f"MLP 64-{width}-{width}-10, 1347 digits", net, digits, repeats=25)
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


def ours(net, data, count, tolerance, seed, *, multiplicity=False):
    """Values by falling magnitude, and products."""
    target = objective(net, data)
    theta = target.theta()
    search = lanczos.Search(
        target.hessian(theta),
        torch.zeros_like(theta),
        count,
        "magnitude",
        generator=torch.Generator().manual_seed(seed),
        tolerance=tolerance,
        multiplicity=multiplicity,
    )
    for _ in search:
        pass
    pairs = search.pairs()
    return peers.ordered(pairs.values), pairs.products


def eigenvalues(nets, data, references, count) -> None:
    """One table: the leading eigenvalues of the networks by each way, done by turns."""
    tolerances = {name: loosest(run, nets, data, references, count) for name, run in tools()}
    rows = {}
    for _ in range(REPEATS):
        for seed, (net, reference) in enumerate(zip(nets, references, strict=True)):
            for name, run in ways(net, data, count, seed, tolerances):
                (values, spent), seconds = cpu(run)
                error = np.abs(values / reference[:count] - 1).max()
                rows.setdefault(name, []).append((spent, seconds, error))
    print(f"\n{count} eigenvalue(s) of {len(nets)} MLPs, medians\n{TABLE_HEADER}")
    units = [np.array(rows[name]) for name in list(rows)[:2]]
    for name, found in rows.items():
        products, seconds, errors = np.array(found).T
        ratios = [np.median(np.array(found)[:, :2] / unit[:, :2], axis=0) for unit in units]
        spent = f"{products.min():.0f}-{products.max():.0f}"
        print(
            f"{name:46s}{spent:>9s}{ratios[0][0]:7.1f}{ratios[1][0]:7.1f}{np.median(seconds):9.2f}"
            f"{ratios[0][1]:7.1f}{ratios[1][1]:7.1f}{errors.max():8.0e}",
            flush=True,
        )


TABLE_HEADER = (
    f"{'ratios to the first and to the second line':46s}{'products':>9s}{'ratios':>14s}"
    f"{'seconds':>9s}{'ratios':>14s}{'error':>8s}"
)


def tools():
    """Those installed that take a tolerance, ours first."""
    installed = importlib.util.find_spec
    yield "landscape, no check", ours
    if installed("pyhessian"):
        yield "PyHessian 0.1", peers.pyhessian
    if installed("curvlinops"):
        yield "curvlinops 3.0.1 and eigsh", peers.curvlinops


def ways(net, data, count, seed, tolerances):
    """Each way to the eigenvalues, by name: a function that returns values and products."""
    default = functools.partial(ours, net, data, count, DEFAULT, seed)
    yield f"landscape, no check, its own tolerance {DEFAULT:g}", default
    for name, run in tools():
        arguments = (net, data, count, tolerances[name], seed)
        yield f"{name}, tolerance {tolerances[name]:g}", functools.partial(run, *arguments)
    yield "landscape, with multiplicity check", functools.partial(default, multiplicity=True)
    if importlib.util.find_spec("pyhessian"):
        own = functools.partial(peers.pyhessian, net, data, count, DEFAULT, seed)
        yield "PyHessian 0.1, its own tolerance 0.001", own
    if importlib.util.find_spec("hessian_eigenthings"):
        run = functools.partial(peers.eigenthings, net, data, count)
        steps = default()[1]
        yield "hessian-eigenthings 1.0.0a5, told our steps", lambda: run(steps, seed)
        yield "hessian-eigenthings 1.0.0a5, its own steps", lambda: run(None, seed)


def loosest(run, nets, data, references, count):
    """The first tolerance of the ladder that achieves the error for all, as the answers tell."""
    for tolerance in LADDER:
        errors = (
            np.abs(run(net, data, count, tolerance, seed)[0] / reference[:count] - 1).max()
            for seed, (net, reference) in enumerate(zip(nets, references, strict=True))
        )
        if all(error <= ERROR for error in errors):
            break
    return tolerance


if __name__ == "__main__":
    main()
