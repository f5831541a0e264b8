"""Networks, and copies of them whose units were put in another order by hand.

The orders are written down layer by layer, as one would on paper: nothing of the library is used.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def order(count: int, generator: torch.Generator) -> Tensor:
    """A random order that is not the present one."""
    drawn = torch.randperm(count, generator=generator)
    return drawn if not torch.equal(drawn, torch.arange(count)) else drawn.flip(0)


def put(tensor: Tensor, axis: int, index: Tensor) -> None:
    """Reorder an axis of a parameter or buffer in place."""
    tensor.data.copy_(tensor.data.index_select(axis, index))


def blocks(outer: Tensor, size: int) -> Tensor:
    """Entry indices where each of the units `outer` is a block of `size` entries."""
    return (outer[:, None] * size + torch.arange(size)).flatten()


def in_heads(heads: Tensor, inside: Tensor) -> Tensor:
    """Entry indices: heads in a new order, and the channels (H, D) of each in one of its own."""
    return (heads[:, None] * inside.shape[1] + inside).flatten()


def norm(module: nn.Module, index: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(module, name, None) is not None:
            put(getattr(module, name), 0, index)


def out(module: nn.Module, index: Tensor) -> None:
    """Reorder what a linear or convolution layer puts out."""
    put(module.weight, 0, index)
    if module.bias is not None:
        put(module.bias, 0, index)


def shaken(net: nn.Module) -> nn.Module:
    """Every tensor generic, running statistics included: no zero biases, no gains of one."""
    generator = torch.Generator().manual_seed(11)
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        positive = name.endswith("running_var") or bool((tensor == 1).all())
        tensor.data.copy_(noise.abs() + 0.5 if positive else tensor.data + noise / 4)
    return net.eval()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3))


def permuted_mlp(net: Any, g: torch.Generator) -> None:
    for layer, following, count in ((0, 2, 9), (2, 4, 8)):
        index = order(count, g)
        out(net[layer], index)
        put(net[following].weight, 1, index)


class Block(nn.Module):
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if into != width:
            down = nn.Conv2d(into, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(down, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """BasicBlocks with BatchNorm (He et al. 2016), the last of them with a strided shortcut."""

    def __init__(self, widths: tuple[int, ...] = (4, 6), blocks: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        made, into = [], widths[0]
        for width in widths:
            for _ in range(blocks):
                made.append(Block(into, width, 1 if into == width else 2))
                into = width
        self.blocks = nn.Sequential(*made)
        self.head = nn.Linear(into, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.conv(x)), inplace=True))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def permuted_resnet(net: Any, g: torch.Generator) -> None:
    stream = order(net.conv.out_channels, g)
    out(net.conv, stream)
    norm(net.norm, stream)
    for block in net.blocks:
        put(block.conv1.weight, 1, stream)
        inner = order(block.conv1.out_channels, g)
        out(block.conv1, inner)
        norm(block.norm1, inner)
        put(block.conv2.weight, 1, inner)
        if len(block.shortcut):
            put(block.shortcut[0].weight, 1, stream)
            stream = order(block.conv1.out_channels, g)
            out(block.shortcut[0], stream)
            norm(block.shortcut[1], stream)
        out(block.conv2, stream)
        norm(block.norm2, stream)
    put(net.head.weight, 1, stream)


class Transformer(nn.Module):
    """Tokens, positions, one pre-norm block of torch's own attention, a head over classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 12)
        self.position = nn.Parameter(torch.randn(5, 12))
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


def permuted_transformer(net: Any, g: torch.Generator) -> None:
    stream, hidden, heads = order(12, g), order(16, g), order(3, g)
    inside = [torch.stack([order(4, g) for _ in range(3)]) for _ in range(2)]
    pair, value = (in_heads(heads, each) for each in inside)  # q and k; v and what it goes into
    attention = net.attention
    rows = torch.cat([pair, 12 + pair, 24 + value])
    put(attention.in_proj_weight, 0, rows)
    put(attention.in_proj_bias, 0, rows)
    put(attention.in_proj_weight, 1, stream)
    put(attention.out_proj.weight, 1, value)
    out(attention.out_proj, stream)
    for tensor in (net.embed.weight, net.position, net.up.weight, net.head.weight):
        put(tensor, 1, stream)
    norm(net.norm1, stream)
    norm(net.norm2, stream)
    out(net.up, hidden)
    put(net.down.weight, 1, hidden)
    out(net.down, stream)


class Language(nn.Module):
    """Its own projection of q, k and v in one; the output weights are the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 12)
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36)
        self.out = nn.Linear(12, 12)
        self.head = nn.Linear(12, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        n, t, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 3, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.out(y.transpose(1, 2).reshape(n, t, width))).mean(1)


def permuted_language(net: Any, g: torch.Generator) -> None:
    stream, heads = order(12, g), order(3, g)
    inside = [torch.stack([order(4, g) for _ in range(3)]) for _ in range(2)]
    pair, value = (in_heads(heads, each) for each in inside)
    out(net.qkv, torch.cat([pair, 12 + pair, 24 + value]))
    put(net.qkv.weight, 1, stream)
    put(net.out.weight, 1, value)
    out(net.out, stream)
    put(net.embed.weight, 1, stream)  # once: the head has the same tensor
    norm(net.norm, stream)


class Flattened(nn.Module):
    """GroupNorm, a depthwise convolution, pixels flattened with their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.hidden = nn.Linear(8 * 4, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.depthwise(F.relu(self.norm(self.conv(x)))))
        return self.head(F.relu(self.hidden(F.max_pool2d(x, 3).flatten(1))))


def permuted_flattened(net: Any, g: torch.Generator) -> None:
    channels = in_heads(order(2, g), torch.stack([order(4, g), order(4, g)]))
    out(net.conv, channels)
    norm(net.norm, channels)
    out(net.depthwise, channels)
    put(net.hidden.weight, 1, blocks(channels, 4))
    hidden = order(7, g)
    out(net.hidden, hidden)
    put(net.head.weight, 1, hidden)


class Recurrent(nn.Module):
    """Two layers of an LSTM that reads both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0].mean(1))


def permuted_recurrent(net: Any, g: torch.Generator) -> None:
    into = None
    for layer in range(2):
        both = [order(6, g) for _ in range(2)]
        for index, way in zip(both, ("", "_reverse"), strict=True):
            gates = torch.cat([gate * 6 + index for gate in range(4)])
            tensors = {
                kind: getattr(net.lstm, f"{kind}_l{layer}{way}")
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            for tensor in tensors.values():
                put(tensor, 0, gates)
            put(tensors["weight_hh"], 1, index)
            if into is not None:
                put(tensors["weight_ih"], 1, into)
        into = torch.cat([both[0], 6 + both[1]])
    put(net.head.weight, 1, into)


class Dense(nn.Module):
    """Features concatenated with those of the layer before (Huang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.second = nn.Conv2d(7, 5, 3, padding=1)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.second(F.relu(self.norm(torch.cat([x, a], 1))))
        return self.head(torch.cat([a, b], 1).amax((2, 3)))


def permuted_dense(net: Any, g: torch.Generator) -> None:
    first, second = order(4, g), order(5, g)
    out(net.first, first)
    seen = torch.cat([torch.arange(3), 3 + first])
    norm(net.norm, seen)
    put(net.second.weight, 1, seen)
    out(net.second, second)
    put(net.head.weight, 1, torch.cat([first, 4 + second]))


@dataclass(frozen=True)
class Case:
    """A kind of network, its data, and what reorders it by hand.

    `groups` are the sizes of what may move, with those of what may move inside of each unit.
    """

    make: Callable[[], nn.Module]
    reorder: Callable[[Any, torch.Generator], None]
    shape: tuple[int, ...]
    groups: tuple[tuple[int, tuple[int, ...]], ...]
    tokens: int = 0

    def network(self) -> nn.Module:
        torch.manual_seed(5)
        return shaken(self.make())

    def copy(self, net: nn.Module, seed: int = 7) -> nn.Module:
        other = copy.deepcopy(net)
        self.reorder(other, torch.Generator().manual_seed(seed))
        return other

    def data(self) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(3)
        labels = torch.randint(0, 3, (12,), generator=g)
        if self.tokens:
            return torch.randint(0, self.tokens, (12, *self.shape), generator=g), labels
        return torch.randn(12, *self.shape, generator=g), labels


CASES = {
    "mlp": Case(mlp, permuted_mlp, (6,), ((9, ()), (8, ()))),
    "resnet": Case(ResNet, permuted_resnet, (3, 6, 6), tuple((n, ()) for n in (4, 4, 4, 6, 6, 6))),
    "transformer": Case(
        Transformer, permuted_transformer, (5,), ((12, ()), (3, (4, 4)), (16, ())), tokens=11
    ),
    "language": Case(Language, permuted_language, (5,), ((12, ()), (3, (4, 4))), tokens=7),
    "flattened": Case(Flattened, permuted_flattened, (3, 6, 6), ((2, (4,)), (7, ()))),
    "recurrent": Case(Recurrent, permuted_recurrent, (4, 5), ((6, ()),) * 4),
    "dense": Case(Dense, permuted_dense, (3, 5, 5), ((4, ()), (5, ()))),
}
