"""What to compare an op of Nyx with. Most ops have a function of the same name and meaning
in torch or torch.nn.functional and are found by it; PEERS says where that differs, and
NO_PEER which ops are not compared here and why. An op that is in none of them and has no namesake fails the suite.
Positions and dimensions count from 0 in this file. Read next: makers.py, ops.py."""
import math

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# ------------------------------------------------------------------- names and signatures


def reduced(fn):
    """A function of one dimension or all, over any dimensions."""

    def over(x, dim=None, keepdim=False):
        if dim is None:
            return fn(x)
        return fn(x, dim=dim, keepdim=keepdim)

    return over


def all_dims(x):
    return tuple(range(x.ndim))


def prod(x, dim=None, keepdim=False):
    if dim is None:
        return torch.prod(x)
    dims = sorted((d % max(x.ndim, 1) for d in ([dim] if isinstance(dim, int) else dim)), reverse=True)
    for d in dims:
        x = torch.prod(x, dim=d, keepdim=keepdim)
    return x


def count_nonzero(x, dim=None, keepdim=False):
    y = torch.count_nonzero(x, dim=dim)
    if keepdim and dim is not None:
        for d in sorted(d % max(x.ndim, 1) for d in ([dim] if isinstance(dim, int) else dim)):
            y = y.unsqueeze(d)
    elif keepdim:
        y = y.reshape([1] * x.ndim)
    return y


def scan(fn, empty):
    """cumsum or cumprod, also reversed, also without the element itself."""

    def run(x, dim, reverse=False, exclusive=False):
        if x.ndim == 0:
            x1 = x.reshape(1)
            return run(x1, 0, reverse, exclusive).reshape([])
        if reverse:
            x = x.flip(dim)
        y = fn(x, dim)
        if exclusive and x.shape[dim]:
            first = torch.full_like(y.narrow(dim, 0, 1), empty)
            y = torch.cat([first, y.narrow(dim, 0, x.shape[dim] - 1)], dim)
        return y.flip(dim) if reverse else y

    return run


def narrow(x, dim, start, length, step=1):
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, start + (length - 1) * step + 1 if length else start, step)
    return x[tuple(index)]


def masked_scatter(x, mask, source):
    x, mask = torch.broadcast_tensors(x, mask)
    return x.masked_scatter(mask, source)


def masked_fill(x, mask, value):
    x, mask = torch.broadcast_tensors(x, mask)
    return x.masked_fill(mask, value)


def masked_select(x, mask):
    return torch.masked_select(x, mask)


def heaviside(x, y):
    """torch's own has no gradient; its values stand."""
    own = torch.heaviside(x.detach(), y.detach())
    if not own.is_floating_point():
        return own
    step = torch.where(x == 0, y + 0 * x, torch.where(x > 0, torch.ones_like(x), torch.zeros_like(x)))
    same = (own == step) | (own.isnan() & step.isnan())
    return torch.where(same, step, own)


def as_strided_scatter(x, value, stride, offset=0):
    y = x.clone()  # torch's own function gives x no gradient outside the region
    y.as_strided(value.shape, stride, offset).copy_(value)
    return y


def int_mm(x, y):
    """torch._int_mm takes matrices of int8 that are not empty; of one row with an odd stride garbage."""
    return torch.matmul(x.int(), y.int())


def int_mm_reaching(x, y, scale, extra, limit):
    """No function of torch; Nyx has the order of rows where there are many queries."""
    left = extra + scale * torch.matmul(x.int(), y.int().T)
    reached = left >= limit[:, None]
    at = (reached.T.nonzero().flip(1) if len(x) >= 48 else reached.nonzero())
    return at, left[at[:, 0], at[:, 1]]


def dequantize_weight(packed, scales, zeros=None):
    """torch's own takes weights in an order of its own, of some sizes, and rounds to bfloat16."""
    int4 = packed.dtype == torch.uint8
    q = torch.stack([packed & 15, packed >> 4], -1).flatten(1) if int4 else packed
    scales = scales.reshape(len(scales), -1, 1)
    q = q.to(scales.dtype).reshape(len(scales), scales.shape[1], -1)
    zeros = (8 if int4 else 0) if zeros is None else zeros.reshape(scales.shape)
    return ((q - zeros) * scales).flatten(1)


ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
               "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": F.softplus, "elu": F.elu}


def linear_activation(x, weight, bias=None, residual=None, other=None, activation=None, keep=True):
    sums = F.linear(x, weight, bias)
    y = sums if activation is None else ACTIVATIONS[activation](sums) if other is None else \
        PEERS.get(activation, torch.mul)(sums, other)
    y = y if residual is None else y + residual
    return (y, sums) if activation and keep else y


def linear_quantized(x, packed, scales, zeros=None, bias=None):
    return F.linear(x, dequantize_weight(packed, scales, zeros), bias)


def embed(x, shape, offset, stride):
    return torch.zeros(shape, dtype=x.dtype).as_strided_scatter(x, x.shape, stride, offset)


def scatter(x, index, src=None, dim=0, value=None):
    return x.scatter(dim, index, value if src is None else src)


def assign(x, value, start, length, step):
    index = tuple(slice(s, s + (n - 1) * k + 1 if n > 0 else s if n == 0 else None, k)
                  for s, n, k in zip(start, length, step))
    y = x.clone()
    y[index] = value
    return y


def roll(x, shifts, dims=None):
    return torch.roll(x, shifts, dims) if dims is not None else torch.roll(x, shifts)


def norm_shape(x, weight, normalized_shape):
    if normalized_shape is not None:
        return normalized_shape
    return list(weight.shape) if weight is not None else [x.shape[-1]]


def layer_norm(x, weight=None, bias=None, normalized_shape=None, eps=1e-5):
    return F.layer_norm(x, norm_shape(x, weight, normalized_shape), weight, bias, eps)


def rms_norm(x, weight=None, normalized_shape=None, eps=1e-5):
    return F.rms_norm(x, norm_shape(x, weight, normalized_shape), weight, eps)


def group_norm(x, weight=None, bias=None, num_groups=None, eps=1e-5):
    if weight is None:  # torch's has no second gradient then
        weight = torch.ones(x.shape[1], dtype=x.dtype)
    return F.group_norm(x, num_groups, weight, bias, eps)


def plain(x):
    """A row-major copy: torch's gradients of conv2d and batch_norm are wrong for some strides,
    of dimensions of size 1 and of the weight."""
    return None if x is None else x.clone(memory_format=torch.contiguous_format)


def conv2d(x, weight, bias=None, **attrs):
    return F.conv2d(plain(x), plain(weight), plain(bias), **attrs)


def conv2d_activation(x, weight, bias=None, residual=None, activation=None, keep=True, **attrs):
    sums = conv2d(x, weight, bias, **attrs)
    sums = sums if residual is None else sums + residual
    y = ACTIVATIONS[activation](sums) if activation else sums
    return (y, sums) if activation and keep else y


def batch_norm(x, weight=None, bias=None, mean=None, var=None, training=False, momentum=0.1, eps=1e-5):
    if weight is None:  # torch's has no second gradient then
        weight = torch.ones(x.shape[1], dtype=x.dtype)
    x, weight, bias = plain(x), plain(weight), plain(bias)
    return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)


def batch_norm_training(x, weight=None, bias=None, mean=None, var=None, momentum=0.1, eps=1e-5):
    dims = [d for d in range(x.ndim) if d != 1]
    y = batch_norm(x, weight, bias, mean, var, True, momentum, eps)
    return y, x.mean(dims), (x.var(dims, correction=0) + eps).rsqrt()


def common(*xs):
    dtype = xs[0].dtype
    for x in xs:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def bin_counts(x, edges=None, weight=None, bins=None, min=0.0, max=1.0, even=False):
    x = x.reshape(-1).double()
    if edges is None:
        return torch.histc(x, bins, min, max).long()
    counts = torch.histogram(x, edges.double(), weight=None if weight is None else weight.reshape(-1).double()).hist
    return counts.long() if weight is None else counts.to(weight.dtype)


def searchsorted(boundaries, values, right=False):
    return torch.searchsorted(boundaries.contiguous(), values.contiguous(), right=right)


def scores_mask(q, k, mask, is_causal, offset=0):
    """Both masks in one that torch takes."""
    if not is_causal:
        return mask
    seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril(offset)
    if mask is None or mask.dtype == torch.bool:
        return seen if mask is None else seen & mask
    return torch.where(seen, mask, -torch.inf)


def scaled_dot_product_attention(q, k, v, mask=None, is_causal=False, scale=None, offset=0):
    if mask is not None or offset:  # torch's is_causal does not go with a mask
        mask, is_causal = scores_mask(q, k, mask, is_causal, offset), False
        lead = torch.broadcast_shapes(*(x.shape[:-3] for x in (q, k, v)))
        q = q.expand(*lead, *q.shape[-3:])  # torch adds the mask in place
    grouped = q.ndim > 2 and q.shape[-3] != k.shape[-3] and k.shape[-3] > 1
    with sdpa_kernel(SDPBackend.MATH):  # the one that has second gradients
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, scale=scale, enable_gqa=grouped)


def recurrence(x, weight_ih, weight_hh, bias_ih=None, bias_hh=None, h0=None, c0=None, weight_hr=None, lengths=None, mode="lstm", reverse=False):
    """From torch's cells, with what they keep to themselves; sequences of different lengths one
    by one."""
    if lengths is not None:
        def alone(b, count):
            row = slice(b, b + 1)
            first = [None if t is None else t[row] for t in (h0, c0)]
            own = recurrence(x[:count, row], weight_ih, weight_hh, bias_ih, bias_hh, *first, weight_hr, None, mode, reverse)
            own = own if isinstance(own, tuple) else (own,)
            return [F.pad(t, (0, 0, 0, 0, 0, len(x) - count)) for t in own]
        none = [torch.zeros_like(t) for t in alone(0, len(x))]
        parts = [alone(b, int(count)) if count > 0 else none for b, count in enumerate(lengths)]
        results = [torch.cat(part, 1) for part in zip(*parts)]
        return results[0] if len(results) == 1 else tuple(results)
    n, hidden = x.shape[1], weight_hh.shape[0] // {"lstm": 4, "gru": 3}.get(mode, 1)
    h = x.new_zeros(n, weight_hh.shape[1]) if h0 is None else h0
    c = x.new_zeros(n, hidden) if c0 is None else c0
    results = []
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        a, b = F.linear(x[t], weight_ih, bias_ih), F.linear(h, weight_hh, bias_hh)
        if mode == "lstm":
            i, f, g, o = (a + b).chunk(4, -1)
            gates = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], -1)
            if weight_hr is None:
                h, c = torch.lstm_cell(x[t], (h, c), weight_ih, weight_hh, bias_ih, bias_hh)
            else:  # torch has no cell with a projection
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = F.linear(o.sigmoid() * c.tanh(), weight_hr)
            results.append((h, gates, c))
        elif mode == "gru":
            (ar, az, an), (br, bz, bn) = a.chunk(3, -1), b.chunk(3, -1)
            r = (ar + br).sigmoid()
            gates = torch.cat([r, (az + bz).sigmoid(), (an + r * bn).tanh(), bn], -1)
            h = torch.gru_cell(x[t], h, weight_ih, weight_hh, bias_ih, bias_hh)
            results.append((h, gates))
        else:
            h = (torch.rnn_tanh_cell if mode == "tanh" else torch.rnn_relu_cell)(x[t], h, weight_ih, weight_hh, bias_ih, bias_hh)
            results.append((h,))
    results = [torch.stack(part[::-1] if reverse else part) for part in zip(*results)]
    return results[0] if len(results) == 1 else tuple(results)


def rotary(x, positions=None, cos=None, sin=None, offset=0, base=10000.0, dim=None, interleaved=False, reverse=False):
    """From torch's ops, positions from 0."""
    if cos is not None:
        dim = 2 * cos.shape[1]
    dim = x.shape[-1] if dim is None else dim
    at = torch.arange(x.shape[-2]) if positions is None else positions
    at = at + offset
    if cos is None:
        angles = at[..., None].double() * base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / max(dim, 1))
        c, s = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    else:
        c, s = cos[at], sin[at]
    turned, rest = x[..., :dim], x[..., dim:]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1) if dim else (turned, turned)
    s = -s if reverse else s
    parts = a * c - b * s, b * c + a * s
    return torch.cat([torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1), rest], -1)


def glu(x, activation="sigmoid"):
    if activation == "sigmoid":
        return F.glu(x)
    y, gate = x.chunk(2, -1)
    return y * getattr(F, activation)(gate)


def attention(q, k, v, mask=None, is_causal=False, scale=None, offset=0):
    y = scaled_dot_product_attention(q, k, v, mask, is_causal, scale, offset)
    if q.ndim > 2:
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    mask = scores_mask(q, k, mask, is_causal, offset)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return y, scores.logsumexp(-1)


def loss_labels(fn):
    def run(x, target, weight=None, ignore_index=None, **attrs):
        if ignore_index is not None:
            attrs["ignore_index"] = ignore_index
        return fn(x, target, weight, **attrs)

    return run


# ------------------------------------------------------------------- factorizations


def lu_factor(a):
    lu, pivots = torch.linalg.lu_factor(a)
    return lu, pivots.long() - 1


def pivot_rows(x, pivots, inverse=False):
    lead = torch.broadcast_shapes(x.shape[:-2], pivots.shape[:-1])
    x, pivots = x.expand(*lead, *x.shape[-2:]), pivots.expand(*lead, pivots.shape[-1])
    if x.numel() == 0 or pivots.numel() == 0:
        return x.clone()
    rows = torch.arange(x.shape[-2]).repeat(lead.numel(), 1)
    for order, own in zip(rows, pivots.reshape(-1, pivots.shape[-1])):
        steps = [(i, int(p)) for i, p in enumerate(own)]
        for i, p in reversed(steps) if inverse else steps:
            order[[i, p]] = order[[p, i]]
    return torch.gather(x, -2, rows.reshape(*lead, -1, 1).expand(x.shape))


def broadcast_sides(a, b):
    """b as matrices beyond doubt: torch takes some for vectors."""
    return b.expand(*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:])


def solve(a, b):
    return (torch.linalg.solve(a, broadcast_sides(a, b)), *lu_factor(a))


def solve_triangular(a, b, upper, left=True, unitriangular=False, check=False):
    return torch.linalg.solve_triangular(a, b, upper=upper, left=left, unitriangular=unitriangular)


def determinant(a, log=False):
    lu, pivots = lu_factor(a.mT)
    if log:
        return lu, pivots, *torch.linalg.slogdet(a)
    moved = (pivots != torch.arange(a.shape[-1])).sum(-1)
    return lu, pivots, torch.linalg.det(a), (1 - 2 * (moved % 2)).to(a.dtype)


def lstsq(a, b):
    x, residuals, *_ = torch.linalg.lstsq(a, b, driver="gels")  # by QR too
    return x, residuals


def lstsq_and_r(a, b):
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = a.expand(*lead, *a.shape[-2:]), broadcast_sides(a, b)
    x = torch.linalg.lstsq(a, b, driver="gels").solution
    return x, ((a @ x - b) ** 2).sum(-2), torch.linalg.qr(a).R


# Functions of Lua that are compared as ops are, and their attributes that are not options.
COMPOSITES = {
    "linalg.solve": (), "linalg.inv": (), "linalg.lu": (), "linalg.lu_solve": (), "linalg.lstsq": (), "linalg.det": (),
    "linalg.slogdet": (), "linalg.matrix_power": ("n",), "logdet": (), "cholesky_solve": (),
}

PEERS = {
    "order_statistic": lambda x, k, dim=-1: torch.kthvalue(x, k, dim, keepdim=True),
    "heaviside": heaviside,
    # elementwise
    "where": lambda x, y, z: torch.where(x != 0, y, z),
    "erfc": torch.erfc,
    "ndtr": lambda x: 0.5 * torch.erfc(x * -(0.5**0.5)),  # torch.special.ndtr(-7.5) has 3 digits
    "i0e": torch.special.i0e, "i1": torch.special.i1, "i1e": torch.special.i1e,
    "exponent": lambda x: torch.where(torch.ones_like(x, dtype=torch.bool),  # the gradient is 0
                                      torch.frexp(x).exponent.masked_fill(~x.isfinite(), 0).to(x.dtype), x),
    "mantissa": lambda x: torch.where(x.isfinite() & (x != 0), torch.frexp(x).mantissa, x),
    "zeta": lambda x, y: torch.special.zeta(x.detach(), y),  # no gradient of x; torch raises an error
    "log_sigmoid": F.logsigmoid,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "smooth_l1": lambda x, y, beta=1.0: F.smooth_l1_loss(*torch.broadcast_tensors(x, y), reduction="none", beta=beta),
    "huber": lambda x, y, delta=1.0: torch.where((x - y).abs() <= delta, 0.5 * (x - y) ** 2,
                                                 delta * ((x - y).abs() - 0.5 * delta)),  # torch's too
    # torch's has no second gradient
    "hardsigmoid": lambda x: F.relu6(x + 3) / 6,
    # spelt in torch operations: torch's own give no gradient to the target, and want equal shapes
    "binary_cross_entropy": lambda x, y: -(y * torch.clamp(torch.log(x), min=-100)
                                           + (1 - y) * torch.clamp(torch.log1p(-x), min=-100)),
    "binary_cross_entropy_with_logits": lambda x, y: torch.clamp(x, min=0) - x * y
    + torch.log1p(torch.exp(-torch.abs(x))),
    "softshrink": lambda x, lambd=0.5: F.softshrink(x, lambd),
    "hardshrink": lambda x, lambd=0.5: F.hardshrink(x, lambd),
    "softsign": F.softsign,
    "threshold": lambda x, threshold=0.0, value=0.0: F.threshold(x, threshold, value),
    "clamp": lambda x, min=None, max=None: torch.clamp(x, min, max) if (min, max) != (None, None) else x,
    "sub": lambda x, y: torch.sub(x, y),
    "bitwise_not": torch.bitwise_not,
    "remainder": torch.remainder,
    "addcmul": lambda x, y, z, value=1, beta=1: (beta * x + value * y * z).to(common(x, y, z)),
    "axpby": lambda x, y, alpha=1, beta=1: (alpha * x + beta * y).to(common(x, y)),
    "near": lambda x, y, rtol=1e-5, atol=1e-8: torch.isclose(x, y, rtol, atol),
    "replace_nonfinite": lambda x, y, posinf=math.inf, neginf=-math.inf: torch.where(
        x.isnan(), y, torch.where(x.isfinite(), x, torch.where(x < 0, neginf, posinf).to(x.dtype))),
    # torch's own compute parts of these gradients in float32
    "celu": lambda x, alpha=1.0: torch.where(x > 0, x, alpha * torch.expm1(x / alpha)),
    "elu": lambda x, alpha=1.0: torch.where(x > 0, x, alpha * torch.expm1(x)),
    "leaky_relu": lambda x, negative_slope=0.01: F.leaky_relu(x, negative_slope),
    # reductions
    "sum": reduced(torch.sum), "nansum": reduced(torch.nansum), "mean": reduced(torch.mean), "amin": lambda x, dim=(), keepdim=False: torch.amin(x, dim, keepdim),
    "amax": lambda x, dim=(), keepdim=False: torch.amax(x, dim, keepdim),
    "prod": prod, "any": reduced(torch.any), "all": reduced(torch.all), "count_nonzero": count_nonzero,
    "min": reduced(torch.min), "max": reduced(torch.max), "argmin": reduced(torch.argmin),
    "argmax": reduced(torch.argmax),
    "norm": lambda x, p=2.0, dim=None, keepdim=False: torch.linalg.vector_norm(x, p, dim, keepdim),
    "logsumexp": lambda x, dim=None, keepdim=False: torch.logsumexp(x, all_dims(x) if dim is None else dim, keepdim),
    "var": lambda x, dim=None, correction=1.0, keepdim=False: torch.var(x, dim, correction=correction, keepdim=keepdim),
    "std": lambda x, dim=None, correction=1.0, keepdim=False: torch.std(x, dim, correction=correction, keepdim=keepdim),
    "cumargmax": lambda x, dim, largest=True: (torch.cummax if largest else torch.cummin)(x, dim)[1],
    "cumsum": scan(torch.cumsum, 0), "cumprod": scan(torch.cumprod, 1),
    # views and copies
    "alias": lambda x: x.view_as(x),
    "view": lambda x, shape: x.view(shape),
    "expand": lambda x, shape: x.expand(shape),
    "contiguous": lambda x: x.contiguous(),
    "relayout": lambda x: x.clone(memory_format=torch.contiguous_format),
    "narrow": narrow,
    "squeeze": lambda x, dim=None: x.squeeze() if dim is None else x.squeeze(dim),
    "diagonal": lambda x, offset=0, dim1=0, dim2=1: torch.diagonal(x, offset, dim1, dim2),
    "unfold": lambda x, dim, size, step=1: x.unfold(dim, size, step),
    "as_strided": lambda x, size, stride, offset=0: x.as_strided(size, stride, offset),
    "embed": embed,
    "as_strided_scatter": as_strided_scatter,
    "cast": lambda x, dtype: x.to(dtype),
    "to": lambda x, dtype=None, device=None: x if dtype is None else x.to(dtype),
    "transfer": lambda x, device: x,
    "assign": assign,
    # indexing
    "gather": lambda x, index, dim: torch.gather(x, dim, index),
    "scatter": scatter,
    "scatter_add": lambda x, index, src, dim: torch.scatter_add(x, dim, index, src),
    "index_select": lambda x, index, dim: torch.index_select(x, dim, index),
    "index_add": lambda x, index, source, dim, alpha=1: torch.index_add(x, dim, index, source, alpha=alpha),
    "index": lambda x, *index: x[index],
    "index_put": lambda x, values, *index, accumulate=False: torch.index_put(x, index, values, accumulate),
    "masked_scatter": masked_scatter, "masked_fill": masked_fill, "masked_select": masked_select,
    "one_hot": lambda x, num_classes=-1: F.one_hot(x, num_classes),
    "unique": lambda x: torch.unique(x, return_inverse=True, return_counts=True),
    "searchsorted": searchsorted,
    "runs": lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True),
    "bin_counts": bin_counts,
    "embedding": lambda weight, index, padding_idx=None: F.embedding(index, weight, padding_idx),
    # shape
    "cat": lambda *xs, dim=0: torch.cat(xs, dim),
    "stack": lambda *xs, dim=0: torch.stack(xs, dim),
    "pad": lambda x, pad, mode="constant", value=0.0: F.pad(x, pad, mode, value if mode == "constant" else None),
    "roll": roll,
    "tile": lambda x, repeats: torch.tile(x, repeats),
    "repeat_interleave": lambda x, repeats, dim=None: torch.repeat_interleave(x, repeats, dim),
    # creation
    "zeros": lambda shape, dtype=None: torch.zeros(shape, dtype=dtype),
    "ones": lambda shape, dtype=None: torch.ones(shape, dtype=dtype),
    "full": lambda shape, fill_value, dtype=None: torch.full(shape, float(fill_value), dtype=dtype),
    "eye": lambda n, m=None, dtype=None: torch.eye(n, n if m is None else m, dtype=dtype),
    "arange": lambda start, stop=None, step=1.0, dtype=None: torch.arange(0 if stop is None else start,
                                                                          start if stop is None else stop, step, dtype=dtype),
    "linspace": lambda start, stop, steps, dtype=None: torch.linspace(start, stop, steps, dtype=dtype),
    # linear algebra, networks
    "matmul_add": lambda x, a, b, beta=1, alpha=1: beta * x + alpha * (a @ b),
    "kron_product": lambda x, y: (x[..., :, None, :, None] * y[..., None, :, None, :]).flatten(-4, -3).flatten(-2, -1),
    "cross_product": lambda x, y, dim=-1: torch.linalg.cross(x, y, dim=dim),
    "distances": lambda x, y, p=2.0: torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1),
    "linear": F.linear, "linear_activation": linear_activation, "int_mm": int_mm, "int_mm_reaching": int_mm_reaching,
    "linear_quantized": linear_quantized,
    "dequantize_weight": dequantize_weight, "conv2d": conv2d,
    "conv2d_activation": conv2d_activation,
    "cholesky": lambda a, upper=False: torch.linalg.cholesky(a, upper=upper), "lu_factor": lu_factor,
    "pivot_rows": pivot_rows, "qr": lambda a, mode="reduced": torch.linalg.qr(a, mode), "solve": solve,
    "solve_triangular": solve_triangular, "determinant": determinant,
    "inverse": torch.linalg.inv, "lstsq": lstsq_and_r,
    "linalg.solve": lambda a, b, left=True: torch.linalg.solve(a, b, left=left), "linalg.inv": torch.linalg.inv,
    "linalg.lu": torch.linalg.lu, "linalg.lstsq": lstsq, "linalg.det": torch.linalg.det,
    # torch's is wrong for some strides of dimensions of size 1
    "linalg.lu_solve": lambda lu, p, b, left=True, adjoint=False: torch.linalg.lu_solve(
        plain(lu), p.int() + 1, plain(b), left=left, adjoint=adjoint),
    "linalg.slogdet": torch.linalg.slogdet, "linalg.matrix_power": torch.linalg.matrix_power, "logdet": torch.logdet,
    # torch's give gradients to the triangle that they do not read
    "cholesky_solve": lambda b, l, upper=False: torch.cholesky_solve(b, l.triu() if upper else l.tril(), upper=upper),
    "cholesky_inverse": lambda l, upper=False: torch.cholesky_inverse(l.triu() if upper else l.tril(), upper=upper),
    "softmax": lambda x, dim=-1: torch.softmax(x, dim), "log_softmax": lambda x, dim=-1: torch.log_softmax(x, dim),
    "conv2d_input": lambda grad, weight, size, **attrs: torch.nn.grad.conv2d_input(
        (*grad.shape[:-3], weight.shape[1] * attrs.get("groups", 1), *size), plain(weight), plain(grad), **attrs),
    "conv2d_weight": lambda grad, x, kernel_size, **attrs: torch.nn.grad.conv2d_weight(
        plain(x), (grad.shape[-3], x.shape[-3] // attrs.get("groups", 1), *kernel_size), plain(grad), **attrs),
    "max_pool2d": F.max_pool2d,
    "max_pool2d_with_indices": lambda x, **attrs: F.max_pool2d(x, return_indices=True, **attrs),
    "layer_norm": layer_norm, "group_norm": group_norm, "rms_norm": rms_norm, "batch_norm": batch_norm,
    "batch_norm_training": batch_norm_training,
    "scaled_dot_product_attention": scaled_dot_product_attention, "attention": attention, "recurrence": recurrence,
    "rotary": rotary, "glu": glu,
    "gate": lambda x, y: x.sigmoid() * y, "swiglu": lambda x, y: F.silu(x) * y, "geglu": lambda x, y: F.gelu(x) * y,
    "cross_entropy": loss_labels(F.cross_entropy), "nll_loss": loss_labels(F.nll_loss),
    "dropout": lambda x, p=0.5, training=True: F.dropout(x, p, training),
}

# Ops that are not compared with a peer op by op.
NO_PEER = {
    "empty": "its elements are undefined",
    "rand": "random", "randn": "random", "randint": "random", "randperm": "random",
    "uniform": "random", "normal": "random", "bernoulli": "random", "multinomial": "random",
    "dropout_mask": "random", "attention_dropout_mask": "random",
    "sgd_step": "in optimisers", "adam_step": "in optimisers", "rmsprop_step": "in optimisers",
}
# Ops of these groups are kernels of other ops' gradients and tested through them, unless
# PEERS has them.
NO_PEER_GROUPS = {"gradient": "tested as the gradient of the op it belongs to",
                  "complex": "tested by complexes.py", "fourier": "tested by complexes.py"}

# Outputs that are positions or labels, by number from 0.
POSITIONS_OUT = {
    "min": {1}, "max": {1}, "argmin": {0}, "argmax": {0}, "sort": {1}, "argsort": {0}, "topk": {1},
    "order_statistic": {1},
    "nonzero": {0}, "int_mm_reaching": {0}, "unique": {1}, "runs": {1}, "searchsorted": {0}, "max_pool2d_with_indices": {1},
    "max_pool2d": {1}, "lu_factor": {1}, "solve": {2}, "determinant": {1},
    "cumargmax": {0}, "cummax": {1}, "cummin": {1}, "median": {1}, "nanmedian": {1},
    "kthvalue": {1}, "mode": {1}, "unique_consecutive": {1}, "bucketize": {0},
}

# Values where results are defined for integers, wider than the domain of gradients.
INT_DOMAIN = {
    "pow": (0, 3), "floor_divide": (1, 9), "remainder": (1, 9), "fmod": (1, 9),
    "bitwise_left_shift": (0, 6), "bitwise_right_shift": (0, 6),
}

# Random values for attributes of elementwise rows, by op and name; the others vary about
# their preset.
ATTRS = {
    "logit": {"eps": (0.01, 0.2)},
    "clamp": {"min": (-2, 0), "max": (0.2, 2)},
    "softplus": {"beta": (0.5, 3), "threshold": (1, 20)},
    "threshold": {"threshold": (-1, 1), "value": (-2, 2)},
    "leaky_relu": {"negative_slope": (0.01, 0.9)},
    "near": {"rtol": (0, 0.5), "atol": (0, 1)},
    "replace_nonfinite": {"posinf": (2, 9), "neginf": (-9, -2)},
}

# Rows whose integers wrap around like torch's.
WRAPS = {"add", "sub", "mul", "neg", "square", "abs", "eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum",
         "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "sign", "clamp", "where", "addcmul", "axpby"}
# Ops whose derivatives in forward mode are taken by reverse mode twice, with the reason.
NO_FORWARD = {"embedding": "torch's forward mode forgets padding_idx",
              "cholesky": "torch's forward mode reads one triangle of the tangent, its gradient is symmetric",
              "cholesky_inverse": "torch's forward mode is not what differences give"}
# The highest order of gradients that the peer has.
ORDER = {}
# Bounds that are this much looser, with the reason beside.
LOOSER = {
    # the gradients of a small batch nearly cancel out
    ("batch_norm", "float32"): 20, ("batch_norm_training", "float32"): 20, ("layer_norm", "float32"): 20, ("group_norm", "float32"): 20,
    # so do those of softmax, a sum of weights times their difference from their mean
    ("attention", "float32"): 20, ("scaled_dot_product_attention", "float32"): 20,
    ("std", "float32"): 20,  # three elements close together: 1 / std^3
}
# Dtypes in which an op is not compared, with the reason.
NOT_IN = {
    ("topk", "bool"): "which of equal elements is not defined in torch",
    ("order_statistic", "bool"): "which of equal elements is not defined in torch",
    ("attention", "float16"): "its log-sum-exp is float32",
    ("attention", "bfloat16"): "its log-sum-exp is float32",
    ("recurrence", "float16"): "its gates and cells are float32",
    ("recurrence", "bfloat16"): "its gates and cells are float32",
    ("batch_norm_training", "float16"): "its statistics are float32",
    ("batch_norm_training", "bfloat16"): "its statistics are float32",
    ("clamp", "bool"): "stays bool; torch gives int64",
    ("square", "bool"): "stays bool; torch computes pow(x, 2) in int64",
    ("any", "uint8"): "bool like every other dtype; torch keeps uint8 for old programs",
    ("all", "uint8"): "bool like every other dtype; torch keeps uint8 for old programs",
}
