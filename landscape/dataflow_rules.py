"""How units pass through operations that compute: elementwise ones, products, norms, losses."""

import re

import numpy as np
from torch import Tensor

from landscape import units
from landscape.dataflow_call import Call, Labels, broadcast, like, tensors
from landscape.dataflow_lookup import RULES as LOOKUPS
from landscape.dataflow_views import RULES as VIEWS
from landscape.dataflow_views import Rule
from landscape.units import Units


def elementwise(call: Call) -> list[Labels]:
    """Whatever lies beside each other is the same units."""
    inputs = tensors(call.values)
    shape = np.broadcast_shapes(*(t.shape for t in inputs))
    whole = broadcast([call.labels(t) for t in inputs], shape)
    return [like(output, whole) for output in call.outputs]


def _same(call: Call) -> list[Labels]:
    """Results of the first argument's axes: copies, softmax (over units it is equivariant)."""
    labels = call.of(0)
    return [like(output, labels) for output in call.outputs]


def _overwritten(call: Call) -> list[Labels]:
    return [tuple(Units(size) for size in output.shape) for output in call.outputs]


def constant(output: Tensor) -> Labels:
    """Labels of a tensor that no weight and no datum went into: free where it is constant."""
    free = units.repeated(output.shape)
    return tuple(
        mine if _constant(output, dim) else units.fixed(mine.size) for dim, mine in enumerate(free)
    )


def _constant(tensor: Tensor, dim: int) -> bool:
    if tensor.numel() == 0 or tensor.shape[dim] == 1:
        return False
    return bool((tensor == tensor.narrow(dim, 0, 1)).all())


def _made(call: Call) -> list[Labels]:
    return [constant(output) for output in call.outputs]


def _reduction(call: Call) -> list[Labels]:
    labels = call.of(0)
    gone = set(call.dims("dim", len(labels)))
    made: list[Labels] = []
    for output in call.outputs:
        kept = [None if dim in gone else mine for dim, mine in enumerate(labels)]
        if output.ndim != len(labels):
            kept = [mine for mine in kept if mine is not None]
        made.append(tuple(mine or units.fixed(1) for mine in kept))
    return made


def _ordered(call: Call) -> list[Labels]:
    """Operations in which the order along `dim` (or `dims`) matters: argmax, cumsum, flip."""
    labels = call.of(0)
    given = {"dim", "dims"} & set(call.given)
    if not given:  # the largest of all, in whatever order
        return _reduction(call)
    gone = set(call.dims(given.pop(), len(labels)))
    for dim in gone:
        units.pin(labels[dim])
    made: list[Labels] = []
    for output in call.outputs:
        if output.ndim == len(labels):
            pairs = enumerate(zip(output.shape, labels, strict=True))
            made.append(tuple(units.fixed(n) if dim in gone else mine for dim, (n, mine) in pairs))
        else:
            made.append(tuple(mine for dim, mine in enumerate(labels) if dim not in gone))
    return made


def _matrix_product(call: Call) -> list[Labels]:
    """Products of the last two arguments that are tensors: mm, mv, dot, bmm, and with a sum."""
    operands = [call.labels(value) for value in call.values if isinstance(value, Tensor)]
    a, b = operands[-2:]
    batch = len(a) - 2 if len(b) == len(a) == 3 else 0
    for mine, other in zip(a[:batch], b[:batch], strict=True):
        units.unify(mine, other)
    units.unify(a[-1], b[batch])
    made = (*a[:-1], *b[batch + 1 :])
    if len(operands) == 3:
        made = broadcast([made, operands[0]], call.outputs[0].shape)
    return [made]


def _convolution(call: Call) -> list[Labels]:
    x, w = call.of("input"), call.of("weight")
    into, out = (w[0], w[1]) if call["transposed"] else (w[1], w[0])
    if call["groups"] > 1:
        into, out = _grouped(call, x[1].size // call["groups"])
    units.unify(x[1], into)
    if call["bias"] is not None:
        units.unify(call.of("bias")[0], out)
    for place in (*w[2:], *x[2:]):
        units.pin(place)
    return [(x[0], out, *map(units.fixed, call.outputs[0].shape[2:]))]


def _grouped(call: Call, inside: int) -> tuple[Units, Units]:
    """Channels in and out of a grouped convolution: (group, channel of the group) each.

    The weight has all channels of one side along its first axis, those of one group of the
    other side along its second.
    """
    groups, whole, each = Units(call["groups"]), *call.of("weight")[:2]
    if call["transposed"]:
        into, out = units.product([groups, Units(inside)]), units.product([groups, each])
        units.unify(whole, into)
    else:
        outside = Units(whole.size // groups.size)
        into, out = units.product([groups, each]), units.product([groups, outside])
        units.unify(whole, out)
    return into, out


def _channel_norm(call: Call) -> list[Labels]:
    x = call.of("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call[name] is not None:
            units.unify(call.of(name)[0], x[1])
    return [like(output, x if output.ndim == len(x) else x[1:2]) for output in call.outputs]


def _group_norm(call: Call) -> list[Labels]:
    x = call.of("input")
    groups = call["group"]
    if 1 < groups < x[1].size:
        size = x[1].size // groups
        units.unify(x[1], units.product([Units(groups), Units(size)]))
    for name in ("weight", "bias"):
        if call[name] is not None:
            units.unify(call.of(name)[0], x[1])
    return [like(output, x) for output in call.outputs]


def _layer_norm(call: Call) -> list[Labels]:
    x = call.of("input")
    for name in ("weight", "bias"):
        if call.given.get(name) is not None:
            labels = call.of(name)
            broadcast([x, labels], [mine.size for mine in x])
    return [like(output, x) for output in call.outputs]


def _weight_norm(call: Call) -> list[Labels]:
    v, g = call.of("v"), call.of("g")
    broadcast([v, g], [mine.size for mine in v])
    return [v, g][: len(call.outputs)]


def _spatial(call: Call) -> list[Labels]:
    """Pooling and resampling over the last axes, as many as the name says."""
    labels = call.of(0)
    count = int(re.findall(r"(\d)d", call.name)[0])
    for place in labels[len(labels) - count :]:
        units.pin(place)
    return [
        (*labels[: len(labels) - count], *map(units.fixed, output.shape[len(labels) - count :]))
        for output in call.outputs
    ]


def _as_complex(call: Call) -> list[Labels]:
    *labels, pair = call.of(0)
    units.pin(pair)
    return [tuple(labels)]


def _as_real(call: Call) -> list[Labels]:
    return [(*call.of(0), units.fixed(2))]


def _attention(call: Call) -> list[Labels]:
    """Fused softmax(q k^T) v, (..., T, D)."""
    q, k, v = call.of("query"), call.of("key"), call.of("value")
    for one, other in [*zip(q[:-2], k[:-2], strict=True), *zip(q[:-2], v[:-2], strict=True)]:
        units.unify(one, other)
    units.unify(q[-1], k[-1])
    units.unify(k[-2], v[-2])
    mask = call.given.get("attn_mask", call.given.get("attn_bias"))
    if mask is not None:
        broadcast([(*q[:-1], k[-2]), call.labels(mask)], [x.size for x in (*q[:-1], k[-2])])
    first, *others = call.outputs
    return [like(first, (*q[:-1], v[-1])), *(tuple(map(units.fixed, t.shape)) for t in others)]


def _distances(call: Call) -> list[Labels]:
    """Between all vectors of two sets, (..., P, M) and (..., R, M)."""
    one, other = call.of("x1"), call.of("x2")
    units.unify(one[-1], other[-1])
    batch = broadcast([one[:-2], other[:-2]], call.outputs[0].shape[:-2])
    return [(*batch, one[-2], other[-2])]


def _class_loss(call: Call) -> list[Labels]:
    """Negative log-likelihood: which class it is matters."""
    labels = call.of("self")
    units.pin(labels[1 if len(labels) > 1 else 0])
    kept = (labels[0], *labels[2:])
    outputs = call.outputs
    return [like(output, kept[: output.ndim]) for output in outputs]


REDUCTIONS = (
    "sum mean amax amin var std prod norm linalg_vector_norm logsumexp nansum all any var_mean "
    "std_mean count_nonzero"
)
NORMS = (
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "_batch_norm_no_update _batch_norm_with_update cudnn_batch_norm miopen_batch_norm"
)
SPATIAL = (
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_linear1d "
    "upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_bilinear2d_aa reflection_pad1d reflection_pad2d replication_pad1d "
    "replication_pad2d max_pool2d"
)
ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"
)
SAME = (
    "clone detach detach_ alias _conj resolve_conj lift_fresh _to_copy contiguous _softmax "
    "_safe_softmax _log_softmax native_dropout fill_ zero_ fill"
)
ORDERED = "max min argmax argmin cumsum cumprod sort topk flip roll _fft_r2c _fft_c2c _fft_c2r"
PRODUCTS = "mm bmm mv dot vdot addmm addmv baddbmm"
OVERWRITTEN = "empty empty_like empty_strided new_empty new_empty_strided"
MADE = "zeros_like ones_like full_like new_zeros new_ones new_full"
ELEMENTWISE = "copy_ copy _prelu_kernel mse_loss smooth_l1_loss huber_loss"
BY_RULE: dict[Rule, str] = {
    elementwise: ELEMENTWISE,
    _same: SAME,
    _overwritten: OVERWRITTEN,
    _made: MADE,
    _reduction: REDUCTIONS,
    _ordered: ORDERED,
    _matrix_product: PRODUCTS,
    _channel_norm: NORMS,
    _layer_norm: "native_layer_norm _fused_rms_norm",
    _spatial: SPATIAL,
    _attention: ATTENTION,
    _class_loss: "nll_loss_forward nll_loss2d_forward",
    _convolution: "convolution",
    _group_norm: "native_group_norm",
    _weight_norm: "_weight_norm_interface",
    _distances: "_cdist_forward _euclidean_dist",
    _as_complex: "view_as_complex",
    _as_real: "view_as_real",
}
RULES: dict[str, Rule] = {
    **VIEWS,
    **LOOKUPS,
    **{name: rule for rule, names in BY_RULE.items() for name in names.split()},
}
