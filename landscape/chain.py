"""The shortest path through all of several points, given what each step costs."""

from itertools import combinations, pairwise

import numpy as np

from landscape.results import Array

EXACT = 12  # points up to which every order is considered (Held and Karp 1962)


def shortest(cost: Array) -> list[int]:
    """The order of all points with the least sum of costs between neighbours.

    Exact up to `EXACT` points; beyond, the best of the nearest-neighbour paths from every point,
    each improved by reversing stretches until none helps (2-opt, Croes 1958).

    Args:
        cost: (N, N), symmetric.
    """
    return _exact(cost) if len(cost) <= EXACT else _good(cost)


def length(cost: Array, order: list[int]) -> float:
    """The sum of the costs between neighbours in `order`."""
    return float(sum(cost[a, b] for a, b in pairwise(order)))


def _exact(cost: Array) -> list[int]:
    count = len(cost)
    best = {(1 << i, i): (0.0, -1) for i in range(count)}
    for size in range(2, count + 1):
        for chosen in combinations(range(count), size):
            members = sum(1 << i for i in chosen)
            for last in chosen:
                rest = members & ~(1 << last)
                best[(members, last)] = min(
                    (best[(rest, k)][0] + float(cost[k, last]), k) for k in chosen if k != last
                )
    members = (1 << count) - 1
    last = min(range(count), key=lambda i: best[(members, i)][0])
    order = []
    while last >= 0:
        order.append(last)
        members, last = members & ~(1 << last), best[(members, last)][1]
    return order


def _good(cost: Array) -> list[int]:
    orders = [_improved(cost, _nearest(cost, start)) for start in range(len(cost))]
    return min(orders, key=lambda order: length(cost, order))


def _nearest(cost: Array, start: int) -> list[int]:
    order, left = [start], set(range(len(cost))) - {start}
    while left:
        order.append(min(left, key=lambda i: cost[order[-1], i]))
        left.remove(order[-1])
    return order


def _improved(cost: Array, order: list[int]) -> list[int]:
    while True:
        others = [
            [*order[:i], *order[i:j][::-1], *order[j:]]
            for i, j in combinations(range(len(order) + 1), 2)
            if j - i > 1
        ]
        best = min(others, key=lambda other: length(cost, other))
        if length(cost, best) >= length(cost, order) - 1e-12 * float(np.abs(cost).max()):
            return order
        order = best
