"""Cheaper ways to five eigenvalues that were tried, against the plain one at equal certainty.

Certified means what `lanczos.Search` means: the residual of every value, and of two more, is at
most 1e-3 of it, measured with float32 products of all examples. What the cheap products cost is
counted in such products.
"""

import statistics
import time

import numpy as np
import torch
from networks import GPT, demo_task, fitted, losses, mlp, objective, text, trained

from landscape import lanczos

COUNT, TOLERANCE = 5, 1e-3


def report() -> None:
    """One table: three networks, and what each way costs on them."""
    print(f"\n{COUNT} eigenvalues with shortcuts; cost in float32 products of all examples")
    digits, lines = demo_task.data("train"), text(32)
    compare("MLP", lambda epochs: trained(mlp, epochs=epochs), digits)
    compare("CNN with BatchNorm", lambda epochs: trained(demo_task.model, epochs=epochs), digits)
    compare("GPT", lambda epochs: fitted(GPT, lines, epochs=2 * epochs, size=16), lines)


def compare(name, train, data) -> None:
    """The lines of one network."""
    net = train(15)
    target = objective(net, data)
    theta = target.theta()
    exact = target.hessian(theta)
    low = objective(net, data, loss=in_bfloat16).hessian(theta)
    few = objective(net, tuple(t[::8] for t in data)).hessian(theta)
    low_cost, few_cost = costs(theta, exact, low, few)
    random = torch.zeros_like(theta)
    truth = plain(exact, random, 1e-5).pairs().values
    print(f"{name}: a product in bfloat16 costs {low_cost:.2f}, of an eighth {few_cost:.2f}")

    def line(what, values, cost, certified):
        error = np.abs(np.sort(values) / np.sort(truth) - 1).max()
        verdict = "certified" if certified else "not certified"
        print(f"  {what:61s}{cost:6.1f}{error:9.0e}  {verdict}", flush=True)

    pairs = plain(exact, random, TOLERANCE).pairs()
    line("plain", pairs.values, pairs.products, True)
    search = plain(low, random, 10 * TOLERANCE)
    spent, start = low_cost * search.krylov.products, leading(search)
    first, last = rayleigh_ritz(exact, start)
    line("bfloat16 to 1e-2, Rayleigh-Ritz", first[0], spent + first[1], False)
    line("bfloat16 to 1e-2, Rayleigh-Ritz and on", last[0], spent + last[1], last[2])
    search = plain(few, random, 10 * TOLERANCE)
    spent = few_cost * search.krylov.products
    for what, cost, vectors in (
        ("an eighth of the examples to 1e-2, then all from its sum", spent, leading(search)),
        ("all from the sum of an earlier checkpoint's eigenvectors", 0.0, earlier(train, data)),
    ):
        pairs = plain(exact, vectors[:COUNT].sum(0), TOLERANCE).pairs()
        line(what, pairs.values, cost + pairs.products, True)


def in_bfloat16(net, batch):
    """The loss with the network's matrix products and convolutions in bfloat16."""

    class Low(torch.nn.Module):
        def forward(self, inputs):
            with torch.autocast("cpu", torch.bfloat16):
                return net(inputs).float()

    return losses(Low(), batch)


def costs(theta, exact, *others):
    """CPU time of a product of each of `others`, in products of `exact`."""
    v = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    times = {matrix: [] for matrix in (exact, *others)}
    for turn in range(6):
        for matrix, seen in times.items():
            start = time.process_time()
            matrix(v)
            seen += [time.process_time() - start] * bool(turn)
    unit = statistics.median(times[exact])
    return [statistics.median(times[matrix]) / unit for matrix in others]


def plain(matrix, start, tolerance):
    """The library's search without its multiplicity check; zeros for a random start."""
    search = lanczos.Search(
        matrix,
        start,
        COUNT,
        "magnitude",
        generator=torch.Generator().manual_seed(0),
        tolerance=tolerance,
        multiplicity=False,
        max_products=100,
    )
    for _ in search:
        pass
    return search


def leading(search):
    """Ritz vectors (COUNT + 2, P) of the values of largest magnitude, guards included."""
    values, S, _ = search.krylov.ritz()
    lead = np.argsort(-np.abs(values))[: COUNT + lanczos.GUARDS]
    vectors = torch.empty(len(lead), search.size)
    lanczos.rotate(S[:, lead], search.krylov.rows[: len(values)], vectors)
    return vectors


def earlier(train, data):
    """Eigenvectors at an earlier point of a training: two thirds of the epochs."""
    target = objective(train(10), data)
    theta = target.theta()
    return plain(target.hessian(theta), torch.zeros_like(theta), TOLERANCE).pairs().vectors


def rayleigh_ritz(matrix, rows):
    """Values and products after one product for each of `rows`, and when all have converged.

    Goes on with the residual that is farthest from its tolerance: each widens the space by one.
    """
    Q = torch.linalg.qr(rows.T.double())[0].T.float()
    AQ = torch.stack([matrix(row) for row in Q])
    first = None
    while True:
        values, S = np.linalg.eigh((Q.double() @ AQ.double().T).numpy())
        lead = np.argsort(-np.abs(values))[: COUNT + lanczos.GUARDS]
        values, S = values[lead], torch.from_numpy(S[:, lead].T.copy()).float()
        rest = S @ AQ - torch.from_numpy(values).float()[:, None] * (S @ Q)
        residuals = rest.norm(dim=1).numpy() / np.abs(values)
        found = values[:COUNT], len(Q), bool((residuals <= TOLERANCE).all())
        first = first or found
        if found[2] or len(Q) == 100:
            return first, found
        row = rest[int(residuals.argmax())].clone()
        row /= row.norm()
        lanczos.orthogonalise(row, Q)
        row /= row.norm()
        Q, AQ = torch.cat([Q, row[None]]), torch.cat([AQ, matrix(row)[None]])
