"""What stands along the axes of tensors: units that may be permuted together.

Every axis is a `Units`: a leaf (n units of which nothing more is known), a product (a view that
merged axes, the outermost first) or a concatenation. Operations find that two axes are the same
(`unify`), that one consists of others (`regroup`, `cut`), or that its order matters (`pin`). All
is done in place, as in the union-find of Tarjan (1975); each step costs the parts it looks at.
"""

from collections.abc import Iterator, Sequence


class Units:
    """The units along one axis.

    Attributes:
        size: how many.
        kind: "leaf", "product" or "concatenation".
        parts: of a product or a concatenation.
        pinned: of a leaf, whether its order matters.
        reason: of a pinned leaf, in words; "" where it is natural (data, classes, pixels).
        outers: of a leaf that a view has split off, the leaves outside of it.
        copies: of such a leaf, one for each index into one of `outers`, made when the tensor is
            indexed there: the q, k and v of one projection need not be permuted alike.
    """

    __slots__ = ("_link", "copies", "kind", "outers", "parts", "pinned", "reason", "size")

    def __init__(self, size: int) -> None:
        """Free units."""
        self.size, self.kind, self.pinned, self.reason = size, "leaf", False, ""
        self.parts: tuple[Units, ...] = ()
        self.outers: tuple[Units, ...] = ()
        self.copies: tuple[Units, tuple[Units, ...]] | None = None
        self._link: Units | None = None


Factors = tuple[Units, ...]


def repeated(shape: Sequence[int]) -> Factors:
    """The axes of a tensor that is constant along each: indexed in one, the others are anew."""
    made = tuple(Units(size) for size in shape)
    for units in made:
        units.outers = tuple(other for other in made if other is not units)
    return made


def stacked(beside: Sequence[Units], outer: Units) -> Units:
    """Units that lie inside of a new axis `outer`, and are those of `beside` where it is indexed.

    They become the same units only if the stack is used as a whole: the last states of all
    layers of a recurrent network are stacked, and mostly dropped.
    """
    first = find(beside[0])
    if all(find(other) is first for other in beside):
        return first
    if all(is_pinned(other) for other in beside):
        return fixed(first.size)
    units = Units(first.size)
    units.outers, units.copies = (outer,), (outer, tuple(beside))
    return units


class MismatchError(ValueError):
    """A view cuts across the units that it finds."""


def find(units: Units) -> Units:
    """The one that stands for all those which `units` was unified with."""
    root = units
    while root._link is not None:
        root = root._link
    while units._link is not None:
        units._link, units = root, units._link
    return root


def fixed(size: int, reason: str = "") -> Units:
    """Units whose order matters."""
    units = Units(size)
    units.pinned, units.reason = True, reason
    return units


def leaves(units: Units) -> Iterator[Units]:
    """The leaves of which `units` are made."""
    root = find(units)
    if root.kind == "leaf":
        yield root
    for part in root.parts:
        yield from leaves(part)


def is_pinned(units: Units) -> bool:
    """Whether no part of `units` can move."""
    return all(leaf.pinned for leaf in leaves(units))


def pin(units: Units, reason: str = "") -> None:
    """From now on the order of `units` matters."""
    for leaf in list(leaves(units)):
        for each in leaves(_settled(leaf)):
            if not each.pinned:
                each.pinned, each.reason = True, reason


def product(parts: Sequence[Units]) -> Units:
    """The axis that a view makes of `parts`, the outermost first."""
    parts = [part for part in parts if part.size != 1]
    if len(parts) == 1:
        return parts[0]
    size = 1
    for part in parts:
        size *= part.size
    return _composite("product", parts, size) if parts else fixed(1)


def concatenation(parts: Sequence[Units]) -> Units:
    """One axis with `parts` one after another."""
    parts = [part for part in parts if part.size]
    if len(parts) == 1:
        return parts[0]
    return _composite("concatenation", parts, sum(part.size for part in parts))


def _composite(kind: str, parts: Sequence[Units], size: int) -> Units:
    units = Units(size)
    units.kind, units.parts = kind, tuple(parts)
    return units


def unify(one: Units, other: Units) -> None:
    """From now on a permutation of `one` is one of `other`.

    Raises:
        MismatchError: they have different sizes.
    """
    a, b = find(one), find(other)
    if a is b:
        return
    if a.size != b.size:
        raise MismatchError(f"{a.size} units are not {b.size}")
    if a.kind != "leaf" or (b.kind == "leaf" and a.pinned and not b.pinned):
        a, b = b, a
    if a.kind == "leaf" and a.pinned:
        pin(b, a.reason)
    elif b.kind == "leaf" and b.pinned:
        pin(a, b.reason)
    elif a.kind == "leaf":
        a, b = _settled(a), _settled(b)
        if a.kind == "leaf" and find(b) is not a:
            a._link = find(b)
        else:
            unify(a, b)
    elif a.kind == b.kind == "product":
        _unify_parts(a, b)
    else:
        summed, cut_up = (a, b) if a.kind == "concatenation" else (b, a)
        pieces = cut(cut_up, [part.size for part in summed.parts])
        for part, piece in zip(summed.parts, pieces, strict=True):
            unify(part, piece)


def _unify_parts(a: Units, b: Units) -> None:
    """Two products, each factor of one made of whole factors of the other where possible."""
    sizes, left, right = [], 1, 1
    lefts, rights = list(factors(a)), list(factors(b))
    bounds = {left := left * part.size for part in lefts}
    bounds &= {right := right * part.size for part in rights}
    before = 1
    for bound in sorted(bounds):
        sizes.append(bound // before)
        before = bound
    for x, y in zip(regroup(lefts, sizes), regroup(rights, sizes), strict=True):
        x, y = find(x), find(y)
        if x.kind == y.kind == "product":  # they share no bound: refine, or give up
            try:
                _refine(x, y)
            except MismatchError:
                pin(x)
                pin(y)
        else:
            unify(x, y)


def _refine(x: Units, y: Units) -> None:
    for part, piece in zip(factors(x), regroup(factors(y), _sizes(x)), strict=True):
        unify(part, piece)


def factors(units: Units) -> Factors:
    """The factors of a product, down to those that are none."""
    root = find(units)
    if root.kind != "product":
        return (root,)
    return tuple(leaf for part in root.parts for leaf in factors(part))


def _sizes(units: Units) -> list[int]:
    return [factor.size for factor in factors(units)]


def regroup(parts: Sequence[Units], sizes: Sequence[int]) -> list[Units]:
    """The axes of `sizes` that a view makes of the axes `parts`; both have the same product.

    Raises:
        MismatchError: they cut across each other.
    """
    queue = [factor for part in parts for factor in factors(part) if factor.size != 1]
    made: list[Units] = []
    for size in sizes:
        taken: list[Units] = []
        while size > 1:
            if not queue:
                raise MismatchError("too few units")
            first = find(queue.pop(0))
            if first.kind == "product":
                queue[0:0] = first.parts
            elif size % first.size == 0:
                taken.append(first)
                size //= first.size
            elif first.size % size == 0:
                outer, inner = _divided(first, size)
                taken.append(outer)
                queue.insert(0, inner)
                size = 1
            else:
                raise MismatchError(f"{first.size} units viewed as {size}")
        made.append(product(taken))
    return made


def _divided(units: Units, size: int) -> tuple[Units, Units]:
    """A leaf or concatenation as a product of `size` and the rest."""
    rest = units.size // size
    outers = () if units.copies else units.outers
    units = _settled(units)
    if units.kind == "product":
        outer, inner = regroup([units], [size, rest])
        return outer, inner
    if units.kind == "concatenation":
        pin(units)
    if is_pinned(units):
        return fixed(size), fixed(rest)
    outer, inner = Units(size), Units(rest)
    outer.outers, inner.outers = outers, (*outers, outer)
    units.kind, units.parts = "product", (outer, inner)
    return outer, inner


def cut(units: Units, sizes: Sequence[int]) -> list[Units]:
    """Pieces of `sizes`, one after another, of an axis; their sum is its size."""
    if len(sizes) == 1:
        return [find(units)]
    if is_pinned(units):
        return [fixed(size) for size in sizes]
    root = _settled(find(units))
    if root.kind == "product":
        return _cut_product(root, sizes)
    if root.kind == "leaf":
        root.kind, root.parts = "concatenation", tuple(Units(size) for size in sizes if size)
    queue, pieces = list(root.parts), []
    for size in sizes:
        taken: list[Units] = []
        while size > 0:
            first = queue.pop(0)
            if first.size > size:
                first, rest = cut(first, [size, first.size - size])
                queue.insert(0, rest)
            taken.append(first)
            size -= first.size
        pieces.append(concatenation(taken))
    return pieces


def _cut_product(units: Units, sizes: Sequence[int]) -> list[Units]:
    outer, *rest = factors(units)
    inner = units.size // outer.size
    if any(size % inner for size in sizes):
        pin(units)
        return [fixed(size) for size in sizes]
    counts = [size // inner for size in sizes]
    if any(count != 1 for count in counts):
        return [product([piece, *rest]) for piece in cut(outer, counts)]
    pin(outer)
    return [product([chosen(part, outer, i) for part in rest]) for i in range(outer.size)]


def chosen(units: Units, outer: Units, index: int) -> Units:
    """`units` where the axis `outer`, which they lie inside of, is indexed."""
    root, outer = find(units), find(outer)
    if root.kind == "product":
        return product([chosen(part, outer, index) for part in root.parts])
    if root.pinned or not lies_inside(root, outer):
        return root
    if root.copies is None:
        root.copies = outer, tuple(Units(root.size) for _ in range(outer.size))
    if root.copies[0] is not outer:
        return _settled(root)
    return root.copies[1][index]


def lies_inside(units: Units, outer: Units) -> bool:
    """Whether a view has split off some of `units` inside of `outer`."""
    outer = find(outer)
    return any(outer is find(other) for leaf in leaves(units) for other in leaf.outers)


def _settled(leaf: Units) -> Units:
    """The leaf with its copies unified: it is used otherwise than by indexing outside of it."""
    copies, leaf.copies, leaf.outers = leaf.copies, None, ()
    for copy in copies[1] if copies else ():
        unify(leaf, copy)
    return find(leaf)
