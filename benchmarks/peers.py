"""Eigenvalues of largest magnitude by other tools, and by float64 for all of them to be judged.

Each takes a network, its data as one batch, how many, and what it asks for by way of accuracy;
and returns the values by falling magnitude, and the Hessian products spent. Nothing is computed
twice for the sake of the comparison: the check that curvlinops makes of its data is left out.
"""

import copy
import importlib
import sys
import warnings

import numpy as np
import torch
from networks import losses
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn.functional import cross_entropy


def reference(net, data, count):
    """From float64 products of a plain double backward, by scipy's ARPACK to 1e-10."""
    net = copy.deepcopy(net).double()
    inputs = data[0].double() if data[0].is_floating_point() else data[0]
    weights = list(net.parameters())
    slopes = torch.autograd.grad(losses(net, (inputs, data[1])).mean(), weights, create_graph=True)
    sizes = [w.numel() for w in weights]

    def product(v):
        pieces = torch.from_numpy(v.ravel()).split(sizes)
        along = [piece.view_as(w) for piece, w in zip(pieces, weights, strict=True)]
        found = torch.autograd.grad(slopes, weights, along, retain_graph=True)
        return torch.cat([piece.flatten() for piece in found]).numpy()

    matrix = LinearOperator((sum(sizes),) * 2, matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(sum(sizes))
    return ordered(eigsh(matrix, count, which="LM", tol=1e-10, v0=start)[0])


def ordered(values):
    """By falling magnitude."""
    values = np.asarray(values, dtype=np.float64)
    return values[np.argsort(-np.abs(values))]


def pyhessian(net, data, count, tolerance, seed):
    """Deflated power iteration; the gradient's graph is kept."""
    importlib.import_module("pyhessian")
    module = sys.modules["pyhessian.hessian"]  # the package gives the name to the class in it
    spent, own = [], module.hessian_vector_product

    def counted(*args):
        spent.append(1)
        return own(*args)

    module.hessian_vector_product = counted
    torch.manual_seed(seed)
    net = copy.deepcopy(net)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # backward(create_graph=True) warns of a cycle
            tool = module.hessian(net, nn.CrossEntropyLoss(), data=data, cuda=False)
            values, _ = tool.eigenvalues(maxIter=1000, tol=tolerance, top_n=count)
    finally:
        module.hessian_vector_product = own
    for weight in net.parameters():
        weight.grad = None  # breaks that cycle
    return ordered(values), len(spent)


def curvlinops(net, data, count, tolerance, seed):
    """ARPACK's implicitly restarted Lanczos, scipy's eigsh, on HessianLinearOperator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.script, at import
        tool = importlib.import_module("curvlinops")
    matrix = tool.HessianLinearOperator(
        net, nn.CrossEntropyLoss(), list(net.parameters()), [data], check_deterministic=False
    ).to_scipy(dtype=np.float32)
    spent = []

    def product(v):
        spent.append(1)
        return matrix.matvec(v)

    counted = LinearOperator(matrix.shape, matvec=product, dtype=np.float32)
    start = np.random.default_rng(seed).standard_normal(matrix.shape[0]).astype(np.float32)
    values = eigsh(counted, count, which="LM", tol=tolerance, v0=start, return_eigenvectors=False)
    return ordered(values), len(spent)


def eigenthings(net, data, count, steps, seed):
    """Its Lanczos with full reorthogonalisation, told how many steps to take; None for its own."""
    tool = importlib.import_module("hessian_eigenthings")

    def loss(network, batch):
        return cross_entropy(network(batch[0]), batch[1])

    operator = tool.HessianOperator(net, [data], loss)
    result = tool.lanczos(operator, k=count, max_iter=steps, reorthogonalize=True, seed=seed)
    return ordered(result.eigenvalues), result.iterations
