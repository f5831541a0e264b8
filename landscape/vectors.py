"""How the vectors of a run lie in memory, and so how sums over their entries are made."""

from collections.abc import Callable, Iterator

from torch import Tensor


class Vectors:
    """Vectors (P,) of which this process holds all entries; `slices.Space` holds some of them.

    Attributes:
        split: entries lie in other processes too.
    """

    split = False

    def size_of(self, v: Tensor) -> int:
        """P, of a vector `v` of which this process holds its entries."""
        return v.numel()

    def total(self, part: Tensor) -> Tensor:
        """A sum over the entries of vectors, from that over those here."""
        return part

    def pieces_of(self, v: Tensor) -> Iterator[Tensor]:
        """The entries of the whole vector of which `v` is the part here, in order, by pieces."""
        yield v

    def finite(self, v: Tensor) -> bool:
        """Whether every entry of `v` is finite."""
        return not bool(self.total((~v.isfinite()).sum()))

    def largest(self, v: Tensor) -> float:
        """The largest |entry| of `v`."""
        return float(v.abs().max())

    def drawn(self, like: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
        """Entries drawn in the order of the whole vector, in the place of those of `like`.

        Args:
            like: gives dtype and device.
            draw: that many random numbers.
        """
        return draw(like.numel()).to(like)


WHOLE = Vectors()
