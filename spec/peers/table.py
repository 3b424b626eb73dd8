"""What to compare an op of Nyx with. Most ops have a function of the same name and meaning
in torch or torch.nn.functional and are found by it; PEERS says where that differs, MAKERS
how to make random calls of ops that are not elementwise rows, and NO_PEER which ops are not
compared here and why. An op that is in none of them and has no namesake fails the suite.
Positions and dimensions count from 0 in this file. Read next: cases.py, ops.py."""
import torch
import torch.nn.functional as F

from cases import INTS, Case

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


def plain(x):
    """A row-major copy: torch's gradients of conv2d and batch_norm are wrong for some strides
    of dimensions of size 1."""
    return None if x is None else x.clone(memory_format=torch.contiguous_format)


def conv2d(x, weight, bias=None, **attrs):
    return F.conv2d(plain(x), plain(weight), plain(bias), **attrs)


def batch_norm(x, weight=None, bias=None, mean=None, var=None, training=False, momentum=0.1, eps=1e-5):
    if weight is None:  # torch's has no second gradient then
        weight = torch.ones(x.shape[1], dtype=x.dtype)
    x = plain(x)
    return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)


def batch_norm_training(x, weight=None, bias=None, mean=None, var=None, momentum=0.1, eps=1e-5):
    dims = [d for d in range(x.ndim) if d != 1]
    y = batch_norm(x, weight, bias, mean, var, True, momentum, eps)
    return y, x.mean(dims), (x.var(dims, correction=0) + eps).rsqrt()


def searchsorted(boundaries, values, right=False):
    return torch.searchsorted(boundaries.contiguous(), values.contiguous(), right=right)


def linear_scan(g, x, dim, reverse=False, exclusive=False):
    raise NotImplementedError


def loss_labels(fn):
    def run(x, target, weight=None, ignore_index=None, **attrs):
        if ignore_index is not None:
            attrs["ignore_index"] = ignore_index
        return fn(x, target, weight, **attrs)

    return run


def positional(fn):
    return lambda *xs, **attrs: fn(*xs, **attrs)


PEERS = {
    # elementwise
    "where": lambda x, y, z: torch.where(x != 0, y, z),
    "erfc": torch.erfc,
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
    # torch's own compute parts of these gradients in float32
    "celu": lambda x, alpha=1.0: torch.where(x > 0, x, alpha * torch.expm1(x / alpha)),
    "elu": lambda x, alpha=1.0: torch.where(x > 0, x, alpha * torch.expm1(x)),
    "leaky_relu": lambda x, negative_slope=0.01: F.leaky_relu(x, negative_slope),
    # reductions
    "sum": reduced(torch.sum), "mean": reduced(torch.mean), "amin": lambda x, dim=(), keepdim=False: torch.amin(x, dim, keepdim),
    "amax": lambda x, dim=(), keepdim=False: torch.amax(x, dim, keepdim),
    "prod": prod, "any": reduced(torch.any), "all": reduced(torch.all), "count_nonzero": count_nonzero,
    "min": reduced(torch.min), "max": reduced(torch.max), "argmin": reduced(torch.argmin),
    "argmax": reduced(torch.argmax),
    "norm": lambda x, p=2.0, dim=None, keepdim=False: torch.linalg.vector_norm(x, p, dim, keepdim),
    "logsumexp": lambda x, dim=None, keepdim=False: torch.logsumexp(x, all_dims(x) if dim is None else dim, keepdim),
    "var": lambda x, dim=None, correction=1.0, keepdim=False: torch.var(x, dim, correction=correction, keepdim=keepdim),
    "std": lambda x, dim=None, correction=1.0, keepdim=False: torch.std(x, dim, correction=correction, keepdim=keepdim),
    "cumsum": scan(torch.cumsum, 0), "cumprod": scan(torch.cumprod, 1),
    # views and copies
    "alias": lambda x: x.view_as(x),
    "view": lambda x, shape: x.view(shape),
    "expand": lambda x, shape: x.expand(shape),
    "contiguous": lambda x: x.contiguous(),
    "narrow": narrow,
    "squeeze": lambda x, dim=None: x.squeeze() if dim is None else x.squeeze(dim),
    "diagonal": lambda x, offset=0, dim1=0, dim2=1: torch.diagonal(x, offset, dim1, dim2),
    "unfold": lambda x, dim, size, step=1: x.unfold(dim, size, step),
    "as_strided": lambda x, size, stride, offset=0: x.as_strided(size, stride, offset),
    "embed": embed,
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
    "linear": F.linear, "conv2d": conv2d,
    "softmax": lambda x, dim=-1: torch.softmax(x, dim), "log_softmax": lambda x, dim=-1: torch.log_softmax(x, dim),
    "conv2d_input": lambda grad, weight, size, **attrs: torch.nn.grad.conv2d_input(
        (*grad.shape[:-3], weight.shape[1] * attrs.get("groups", 1), *size), plain(weight), plain(grad), **attrs),
    "conv2d_weight": lambda grad, x, kernel_size, **attrs: torch.nn.grad.conv2d_weight(
        plain(x), (grad.shape[-3], x.shape[-3] // attrs.get("groups", 1), *kernel_size), plain(grad), **attrs),
    "max_pool2d": F.max_pool2d,
    "max_pool2d_with_indices": lambda x, **attrs: F.max_pool2d(x, return_indices=True, **attrs),
    "layer_norm": layer_norm, "rms_norm": rms_norm, "batch_norm": batch_norm,
    "batch_norm_training": batch_norm_training,
    "cross_entropy": loss_labels(F.cross_entropy), "nll_loss": loss_labels(F.nll_loss),
    "dropout": lambda x, p=0.5, training=True: F.dropout(x, p, training),
}

# Ops that are not compared with a peer op by op.
NO_PEER = {
    "empty": "its elements are undefined",
    "rand": "random", "randn": "random", "randint": "random", "randperm": "random",
    "uniform": "random", "normal": "random", "bernoulli": "random", "multinomial": "random",
    "dropout_mask": "random",
    "sgd_step": "in optimisers", "adam_step": "in optimisers", "rmsprop_step": "in optimisers",
}
# Ops of these groups are kernels of other ops' gradients and tested through them, unless
# PEERS has them.
NO_PEER_GROUPS = {"gradient": "tested as the gradient of the op it belongs to"}

# Outputs that are positions or labels, by number from 0.
POSITIONS_OUT = {
    "min": {1}, "max": {1}, "argmin": {0}, "argmax": {0}, "sort": {1}, "argsort": {0}, "topk": {1},
    "nonzero": {0}, "unique": {1}, "searchsorted": {0}, "max_pool2d_with_indices": {1},
    "max_pool2d": {1},
}

# Values where results are defined for integers, wider than the domain of gradients.
INT_DOMAIN = {
    "pow": (0, 3), "floor_divide": (1, 9), "remainder": (1, 9), "fmod": (1, 9),
    "bitwise_left_shift": (0, 6), "bitwise_right_shift": (0, 6),
}

# Random values for attributes of elementwise rows, by op and name; the others vary about
# their preset.
ATTRS = {
    "clamp": {"min": (-2, 0), "max": (0.2, 2)},
    "softplus": {"beta": (0.5, 3), "threshold": (1, 20)},
    "threshold": {"threshold": (-1, 1), "value": (-2, 2)},
    "leaky_relu": {"negative_slope": (0.01, 0.9)},
}

# ------------------------------------------------------------------- random calls


def wide(r, dtype):
    return (-9, 9) if dtype in INTS else (-2, 2)


def reduction(r, dtype, over=True, p=False, nonempty=False, distinct=False, positive=False):
    shape = r.shape(0, 4, 6, 0 if nonempty else 0.04)
    if r.chance(0.1) and not (distinct and dtype in (torch.float16, torch.bfloat16)):
        shape = [r.randint(100, 3000)]
    lo, hi = wide(r, dtype)
    x = r.distinct(shape, dtype, lo, hi) if distinct else r.tensor(shape, dtype, 0.3 if positive else lo, hi)
    attrs = {}
    if r.chance(0.75):
        ndim = len(shape)
        if ndim:
            attrs["dim"] = r.dims(ndim) if over and r.chance(0.5) else r.dim(ndim)
            if r.chance(0.5):
                attrs["keepdim"] = r.chance(0.7)
    if p and r.chance(0.7):
        attrs["p"] = r.choice([0.0, 1.0, 2.0, 3.0, 2.5, 0.5, float("inf"), float("-inf")])
    return Case([x], attrs, order=2 if x.numel() else 1)  # of nothing: 0 / 0 in the second


def norm(r, dtype):
    c = reduction(r, dtype, p=True, nonempty=True, distinct=True)
    if c.inputs[0].numel():  # at 0 torch's second gradients are nan, Nyx's 0
        x = c.inputs[0]
        c.inputs[0] = torch.where(x == 0, torch.ones_like(x), x)
    return c


def product(r, dtype):
    c = reduction(r, dtype)
    if dtype not in INTS and c.inputs[0].numel() > 50:
        c.inputs[0] = c.inputs[0].reshape(-1)[:20]
        c.attrs.pop("dim", None), c.attrs.pop("keepdim", None)
    if dtype in FLOAT_TYPES and r.chance(0.3) and c.inputs[0].numel():
        c.inputs[0] = torch.where(c.inputs[0] > 1.5, 0, c.inputs[0])
    return c


FLOAT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def variance(r, dtype):
    c = reduction(r, dtype, nonempty=True)
    if r.chance(0.6):
        c.attrs["correction"] = r.choice([0.0, 1.0, 0.5])
    x, dim = c.inputs[0], c.attrs.get("dim")
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    n = 1
    for d in dims:
        n *= x.shape[d]
    if n < 3:  # no freedom left: nan and infinities, tested apart
        c.inputs[0] = r.tensor([n_ + 2 for n_ in x.shape] or [4], dtype, repeats=False)
        if not x.ndim:
            c.attrs.pop("dim", None)
    else:
        c.inputs[0] = r.tensor(x.shape, dtype, repeats=False)
    return c


def scanning(r, dtype):
    shape = r.shape(1, 4)
    attrs = {"dim": r.dim(len(shape))}
    for name in ("reverse", "exclusive"):
        if r.chance(0.4):
            attrs[name] = r.chance(0.7)
    return Case([r.tensor(shape, dtype, *wide(r, dtype))], attrs)


def softmax(r, dtype):
    shape = r.shape(1, 4)
    return Case([r.tensor(shape, dtype, -3, 3)], {"dim": r.dim(len(shape))} if r.chance(0.8) else {})


def one(**options):
    """x alone, without attributes."""
    return lambda r, dtype: Case([r.tensor(r.shape(**options), dtype)])


def transpose(r, dtype):
    shape = r.shape(1)
    return Case([r.tensor(shape, dtype)], {"dim0": r.dim(len(shape)), "dim1": r.dim(len(shape))})


def permute(r, dtype):
    shape = r.shape()
    dims = list(range(len(shape)))
    r.shuffle(dims)
    return Case([r.tensor(shape, dtype)], {"dims": [d - len(dims) if r.chance(0.2) else d for d in dims]})


def new_shape(r, count):
    """A random shape of so many elements, perhaps with a -1."""
    shape = []
    while count > 1 and len(shape) < 6 and r.chance(0.8):
        n = r.choice([n for n in range(1, count + 1) if count % n == 0])
        shape.append(n)
        count //= n
    shape.append(count)
    if r.chance(0.4):
        shape[r.randrange(len(shape))] = -1
    return shape


def reshape(contiguous):
    def make(r, dtype):
        shape = r.shape(empty=0)
        count = 1
        for n in shape:
            count *= n
        return Case([r.tensor(shape, dtype, plain=contiguous)], {"shape": new_shape(r, count)})

    return make


def expand(r, dtype):
    full = r.shape(1)
    own = [1 if r.chance(0.4) else n for n in full][r.randint(0, len(full) - 1) if r.chance(0.4) else 0:]
    kept = len(full) - len(own)
    shape = [-1 if i >= kept and own[i - kept] == n and r.chance(0.2) else n for i, n in enumerate(full)]
    return Case([r.tensor(own, dtype)], {"shape": shape})


def select(r, dtype):
    shape = r.shape(1, empty=0)
    dim = r.dim(len(shape))
    return Case([r.tensor(shape, dtype)], {"dim": dim, "index": r.randrange(-shape[dim], shape[dim])})


def narrow_call(r, dtype):
    shape = r.shape(1, size=9, empty=0)
    dim = r.dim(len(shape))
    start = r.randrange(shape[dim])
    step = r.choice([1, 1, 2, 3])
    length = r.randint(0, -(-(shape[dim] - start) // step))
    attrs = {"dim": dim, "start": start, "length": length}
    if step > 1:
        attrs["step"] = step
    return Case([r.tensor(shape, dtype)], attrs)


def squeeze(r, dtype):
    shape = [1 if r.chance(0.5) else n for n in r.shape()]
    return Case([r.tensor(shape, dtype)], {"dim": r.dim(len(shape))} if shape and r.chance(0.6) else {})


def unsqueeze(r, dtype):
    shape = r.shape(0, 3)
    return Case([r.tensor(shape, dtype)], {"dim": r.dim(len(shape) + 1)})


def diagonal(r, dtype):
    shape = r.shape(2)
    attrs = {}
    if r.chance(0.5):
        attrs["offset"] = r.randint(-4, 4)
    if r.chance(0.6):
        attrs["dim1"], attrs["dim2"] = r.sample(range(len(shape)), 2)
        if r.chance(0.3):
            attrs["dim2"] -= len(shape)
    return Case([r.tensor(shape, dtype)], attrs)


def unfold(r, dtype):
    shape = r.shape(1, size=8, empty=0)
    dim = r.dim(len(shape))
    attrs = {"dim": dim, "size": r.randint(1, shape[dim])}
    if r.chance(0.6):
        attrs["step"] = r.randint(1, 4)
    return Case([r.tensor(shape, dtype)], attrs)


def as_strided(r, dtype):
    x = r.tensor([r.randint(20, 60)], dtype, plain=True)
    while True:
        size = r.shape(1, 3, 4, 0)
        stride = [r.randint(0, 6) for _ in size]
        offset = r.randint(0, 4)
        if offset + sum((n - 1) * s for n, s in zip(size, stride)) < x.numel():
            return Case([x], {"size": size, "stride": stride, "offset": offset})


def embed_call(r, dtype):
    shape = r.shape(1, 3, 4, 0)
    stride, step = [], 1
    for n in shape:
        stride.append(step)
        step *= n * r.choice([1, 2])
    offset = r.randint(0, 3)
    return Case([r.tensor(shape, dtype)], {"shape": [step + offset + 1], "offset": offset, "stride": stride})


def assign_call(r, dtype):
    shape = r.shape(1, empty=0)
    start = [r.randrange(n) for n in shape]
    step = [r.choice([1, 1, 2]) for _ in shape]
    length = [r.randint(1, -(-(n - s) // k)) for n, s, k in zip(shape, start, step)]
    own = [1 if r.chance(0.2) else n for n in length][r.randint(0, len(length)) if r.chance(0.3) else 0:]
    return Case([r.tensor(shape, dtype, repeats=False), r.tensor(own, dtype)],
                {"start": start, "length": length, "step": step})


def cast(r, dtype):
    to = r.choice(list(FLOAT_TYPES) + list(INTS) + [torch.bool])
    lo = 0 if to == torch.uint8 else -9
    return Case([r.tensor(r.shape(), dtype, lo, 9)], {"dtype": to})


def flatten(r, dtype):
    shape = r.shape()
    attrs = {}
    if shape and r.chance(0.7):
        first = r.randrange(len(shape))
        attrs["start_dim"] = first - len(shape) if r.chance(0.3) else first
        if r.chance(0.7):
            attrs["end_dim"] = r.randrange(first, len(shape))
    return Case([r.tensor(shape, dtype)], attrs)


def gather(r, dtype):
    shape = r.shape(1, empty=0)
    dim = r.dim(len(shape))
    own = [r.randint(1, n) for n in shape]
    own[dim] = r.randint(0, 6)
    return Case([r.tensor(shape, dtype), r.positions(own, shape[dim])], {"dim": dim}, positions={1})


def unique_positions(r, shape, dim, size):
    """Positions along dim that do not repeat: what is written twice is not defined."""
    index = torch.rand([*shape[:dim], size, *shape[dim + 1:]], generator=r.generator).argsort(dim)
    return index.narrow(dim, 0, shape[dim])


def scatter_call(add):
    def make(r, dtype):
        shape = r.shape(1, empty=0)
        dim = r.randrange(len(shape))
        own = [r.randint(1, n) for n in shape]
        index = unique_positions(r, own, dim, shape[dim])
        if add:
            own[dim] = r.randint(1, 6)
            index = r.positions(own, shape[dim])
        x = r.tensor(shape, dtype, repeats=False)
        attrs = {"dim": dim - len(shape) if r.chance(0.3) else dim}
        if not add and r.chance(0.3):
            attrs["value"] = float(r.randint(0, 3))
            return Case([x, index], attrs, positions={1})
        more = 0 if dtype in FLOAT_TYPES else 1  # torch's gradient wants equal sizes
        src = r.tensor([n + r.choice([0, more]) for n in own], dtype)
        return Case([x, index, src], attrs, positions={1})

    return make


def index_select(r, dtype):
    shape = r.shape(1, empty=0)
    dim = r.dim(len(shape))
    return Case([r.tensor(shape, dtype), r.positions([r.randint(0, 6)], shape[dim])], {"dim": dim}, positions={1})


def index_add(r, dtype):
    shape = r.shape(1, empty=0)
    dim = r.dim(len(shape))
    n = r.randint(0, 6)
    own = list(shape)
    own[dim] = n
    attrs = {"dim": dim}
    if r.chance(0.4):
        attrs["alpha"] = 2 if dtype not in FLOAT_TYPES else 0.5
    return Case([r.tensor(shape, dtype, repeats=False), r.positions([n], shape[dim]), r.tensor(own, dtype)], attrs,
                positions={1})


def take(r, dtype):
    x = r.tensor(r.shape(empty=0), dtype)
    return Case([x, r.positions(r.shape(), x.numel(), True)], positions={1})


def index_call(r, dtype):
    shape = r.shape(1, empty=0)
    k = r.randint(1, len(shape))
    shapes = r.broadcast(k, 2)
    inputs = [r.tensor(shape, dtype)] + [r.positions(s, n, True) for s, n in zip(shapes, shape)]
    return Case(inputs, positions=set(range(1, k + 1)))


def index_put(r, dtype):
    shape = r.shape(1, empty=0)
    x = r.tensor(shape, dtype, repeats=False)
    accumulate = r.chance(0.5)
    if accumulate:
        k = r.randint(1, len(shape))
        index = [r.positions([3], n, True) for n in shape[:k]]
    else:
        k = 1
        index = [torch.randperm(shape[0], generator=r.generator)[:r.randint(1, shape[0])]]
    n = index[0].numel()
    own = [n, *shape[k:]]
    own = [1 if r.chance(0.2) else s for s in own][r.randint(0, len(own)) if r.chance(0.2) else 0:]
    return Case([x, r.tensor(own, dtype)] + index, {"accumulate": accumulate}, positions=set(range(2, 2 + k)))


def masked(kind):
    def make(r, dtype):
        shapes = r.broadcast(2, 3)
        x, mask = r.tensor(shapes[0], dtype), r.mask(shapes[1])
        if kind == "select":
            return Case([x, mask])
        if kind == "fill":
            return Case([x, mask], {"value": float(r.randint(0, 9))})
        n = torch.broadcast_tensors(x, mask)[1].sum().item()
        return Case([x, mask, r.tensor([n + r.randint(0, 2)], dtype)])

    return make


def listed(dim_of):
    def make(r, dtype):
        shape = r.shape(0 if dim_of == "stack" else 1, 3)
        n = r.randint(1, 4)
        dim = r.dim(len(shape) + (dim_of == "stack"))
        xs = []
        for _ in range(n):
            own = list(shape)
            if dim_of == "cat":
                own[dim] = r.randint(0, 4)
            xs.append(r.tensor(own, dtype))
        return Case(xs, {"dim": dim} if dim != 0 or r.chance(0.5) else {})

    return make


def pad(r, dtype):
    mode = r.choice(["constant", "constant", "reflect", "replicate", "circular"])
    if mode == "constant":
        shape = r.shape(1)
        k = r.randint(1, len(shape))
        pads = []
        for i in range(k):
            n = shape[-1 - i]
            before = r.randint(-min(n, 1), 3)
            pads += [before, r.randint(-min(max(n + min(before, 0), 0), 1), 3)]
        attrs = {"pad": pads}
        if r.chance(0.6):
            attrs["value"] = float(r.randint(0, 3))
        if r.chance(0.3):
            attrs["mode"] = mode
        return Case([r.tensor(shape, dtype)], attrs)
    k = r.randint(1, 3)
    shape = r.shape(k + 1, k + 2, 5, 0)
    limit = {"reflect": lambda n: n - 1, "circular": lambda n: n, "replicate": lambda n: 4}[mode]
    pads = []
    for i in range(k):
        pads += [r.randint(0, limit(shape[-1 - i])) for _ in range(2)]
    return Case([r.tensor(shape, dtype)], {"pad": pads, "mode": mode})


def sorting(kind):
    def make(r, dtype):
        shape = r.shape(1, 3, 7 if dtype in FLOAT_TYPES else 4)
        if r.chance(0.15) and dtype in FLOAT_TYPES[:2]:
            shape = [2, 300]
        x = r.distinct(shape, dtype, -60 if dtype != torch.uint8 else 0, 60)
        attrs = {}
        if r.chance(0.7):
            attrs["dim"] = r.dim(len(shape))
        if kind == "topk":
            dim = attrs.get("dim", -1)
            attrs["k"] = r.randint(0, shape[dim])
            if r.chance(0.5):
                attrs["largest"] = r.chance(0.3)
        elif r.chance(0.5):
            attrs["descending"] = r.chance(0.7)
        if kind != "topk":
            attrs["stable"] = True
        return Case([x], attrs)

    return make


def unique(r, dtype):
    return Case([r.tensor(r.shape(empty=0, size=9), torch.int64 if dtype in FLOAT_TYPES else dtype, -5, 5).to(dtype)])


def searchsorted_call(r, dtype):
    shape = r.shape(1, 3, 7)
    x = r.tensor(shape, torch.int64, 0, 9, plain=True).to(dtype).sort(-1).values
    own = list(shape)
    own[-1] = r.randint(0, 5)
    values = r.tensor(own if len(shape) > 1 else r.shape(), torch.int64, -1, 10, plain=True).to(dtype)
    return Case([x, values], {"right": r.chance(0.5)} if r.chance(0.7) else {})


def flip(r, dtype):
    shape = r.shape(1)
    return Case([r.tensor(shape, dtype)], {"dims": r.dims(len(shape))})


def roll_call(r, dtype):
    shape = r.shape(1, empty=0)
    if r.chance(0.3):
        return Case([r.tensor(shape, dtype)], {"shifts": [r.randint(-9, 9)]})
    dims = r.dims(len(shape))
    return Case([r.tensor(shape, dtype)], {"shifts": [r.randint(-9, 9) for _ in dims], "dims": dims})


def tile(r, dtype):
    shape = r.shape(0, 3)
    return Case([r.tensor(shape, dtype)], {"repeats": [r.randint(0, 3) for _ in range(r.randint(1, 4))]})


def repeat_interleave(r, dtype):
    shape = r.shape(0, 3)
    attrs = {"repeats": r.randint(0, 3)}
    if shape and r.chance(0.7):
        attrs["dim"] = r.dim(len(shape))
    return Case([r.tensor(shape, dtype)], attrs)


def triangle(r, dtype):
    return Case([r.tensor(r.shape(2), dtype)], {"diagonal": r.randint(-4, 4)} if r.chance(0.7) else {})


def one_hot(r, dtype):
    n = r.randint(2, 6)
    return Case([r.positions(r.shape(1, 3, empty=0), n)], {"num_classes": n} if r.chance(0.6) else {}, positions={0})


def creation(**attrs):
    def make(r, dtype):
        given = {name: value(r) for name, value in attrs.items()}
        if r.chance(0.7):
            given["dtype"] = dtype
        return Case([], given)

    return make


def arange(r, dtype):
    if r.chance(0.3):
        return Case([], {"start": float(r.randint(0, 9)), "dtype": dtype})
    start, stop = float(r.randint(0, 9)), float(r.randint(0, 30))
    step = r.choice([1.0, 2.0, 3.0] + [0.25, 0.1] * (dtype in FLOAT_TYPES))
    return Case([], {"start": min(start, stop), "stop": max(start, stop), "step": step, "dtype": dtype})


def linspace(r, dtype):
    dtype = dtype if dtype in FLOAT_TYPES else torch.float64
    return Case([], {"start": r.uniform(-5, 5), "stop": r.uniform(-5, 5), "steps": r.randint(0, 20), "dtype": dtype})


def matmul(r, dtype):
    m, k, n = (r.choice([0, 1, 2, 3, 5, 8, 17]) if r.chance(0.9) else r.randint(30, 70) for _ in range(3))
    if r.chance(0.15):
        return Case([r.tensor([k], dtype), r.tensor([k], dtype)])
    a, b = r.broadcast(2, 2)
    if r.chance(0.15):
        return Case([r.tensor([k], dtype), r.tensor([*b, k, n], dtype)])
    if r.chance(0.15):
        return Case([r.tensor([*a, m, k], dtype), r.tensor([k], dtype)])
    return Case([r.tensor([*a, m, k], dtype), r.tensor([*b, k, n], dtype)])


def bmm(r, dtype):
    b, m, k, n = (r.randint(0 if r.chance(0.05) else 1, 6) for _ in range(4))
    return Case([r.tensor([b, m, k], dtype), r.tensor([b, k, n], dtype)])


def linear(r, dtype):
    features, out = r.randint(1, 9), r.randint(1, 9)
    inputs = [r.tensor([*r.shape(0, 3), features], dtype), r.tensor([out, features], dtype)]
    if r.chance(0.6):
        inputs.append(r.tensor([out], dtype))
    return Case(inputs)


def pair(r, low, high):
    return [r.randint(low, high), r.randint(low, high)]


def conv_parts(r):
    groups = r.choice([1, 1, 1, 2, 3])
    cin, cout = groups * r.randint(1, 3), groups * r.randint(1, 3)
    kernel = pair(r, 1, 3)
    attrs = {}
    if r.chance(0.5):
        attrs["stride"] = pair(r, 1, 3)
    if r.chance(0.5):
        attrs["padding"] = pair(r, 0, 2)
    if r.chance(0.4):
        attrs["dilation"] = pair(r, 1, 2)
    if groups > 1:
        attrs["groups"] = groups
    dilation = attrs.get("dilation", [1, 1])
    size = [d * (k - 1) + 1 + r.randint(0, 6) for d, k in zip(dilation, kernel)]
    return groups, cin, cout, kernel, size, attrs


def conv2d(r, dtype):
    groups, cin, cout, kernel, size, attrs = conv_parts(r)
    batch = [r.randint(1, 3)] if r.chance(0.85) else []
    inputs = [r.tensor([*batch, cin, *size], dtype), r.tensor([cout, cin // groups, *kernel], dtype)]
    if r.chance(0.6):
        inputs.append(r.tensor([cout], dtype))
    return Case(inputs, attrs)


def conv2d_backward(of):
    def make(r, dtype):
        groups, cin, cout, kernel, size, attrs = conv_parts(r)
        stride, padding, dilation = (attrs.get(n, p) for n, p in
                                     (("stride", [1, 1]), ("padding", [0, 0]), ("dilation", [1, 1])))
        out = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, p, d, k, t in zip(size, padding, dilation, kernel, stride)]
        grad = r.tensor([2, cout, *out], dtype)
        if of == "input":
            return Case([grad, r.tensor([cout, cin // groups, *kernel], dtype)], {"size": size, **attrs})
        return Case([grad, r.tensor([2, cin, *size], dtype)], {"kernel_size": kernel, **attrs})

    return make


def pool(r, dtype, average=False):
    kernel = pair(r, 1, 3)
    attrs = {"kernel_size": kernel}
    if r.chance(0.6):
        attrs["stride"] = pair(r, 1, 3)
    if r.chance(0.5):
        attrs["padding"] = [r.randint(0, k // 2) for k in kernel]
    if r.chance(0.4):
        attrs["ceil_mode"] = r.chance(0.8)
    dilation = [1, 1]
    if average:
        if r.chance(0.4):
            attrs["count_include_pad"] = r.chance(0.4)
        if r.chance(0.3):
            attrs["divisor_override"] = r.randint(1, 9)
    elif r.chance(0.4):
        dilation = attrs["dilation"] = pair(r, 1, 2)
    size = [d * (k - 1) + 1 + r.randint(0, 6) for d, k in zip(dilation, kernel)]
    shape = ([r.randint(1, 3)] if r.chance(0.8) else []) + [r.randint(1, 3), *size]
    return Case([r.tensor(shape, dtype) if average else r.distinct(shape, dtype)], attrs)


def adaptive(r, dtype):
    shape = ([r.randint(1, 3)] if r.chance(0.8) else []) + [r.randint(1, 3), r.randint(1, 8), r.randint(1, 8)]
    return Case([r.tensor(shape, dtype)], {"output_size": pair(r, 1, 6)})


def normal(bias):
    def make(r, dtype):
        shape = r.shape(1, 4, empty=0)
        shape[-1] += 2  # two elements, normalized, are 1 and -1: their gradients cancel out
        k = r.randint(1, len(shape))
        inputs, attrs = [r.tensor(shape, dtype, repeats=False)], {}
        if r.chance(0.6):
            inputs.append(r.tensor(shape[-k:], dtype))
            if bias and r.chance(0.7):
                inputs.append(r.tensor(shape[-k:], dtype))
        if len(inputs) == 1 or r.chance(0.5):
            attrs["normalized_shape"] = shape[-k:]
        if r.chance(0.5):
            attrs["eps"] = r.uniform(1e-3, 0.1)
        return Case(inputs, attrs)

    return make


def batch_normal(training_op):
    def make(r, dtype):
        channels = r.randint(1, 4)
        shape = [r.randint(2, 5), channels] + ([r.randint(1, 4) for _ in range(r.choice([0, 1, 2]))])
        training = training_op or r.chance(0.5)
        x = r.tensor(shape, dtype, repeats=False)
        weight, bias = (r.tensor([channels], dtype, repeats=False) if r.chance(0.7) else None for _ in range(2))
        mean = r.tensor([channels], dtype, plain=True)
        var = r.tensor([channels], dtype, 0.5, 2, plain=True)
        if training and r.chance(0.4):
            mean = var = None
        attrs = {}
        if training and not training_op:
            attrs["training"] = True
        if training and r.chance(0.5):
            attrs["momentum"] = r.uniform(0.01, 0.9)
        if r.chance(0.5):
            attrs["eps"] = r.uniform(1e-3, 0.1)
        inputs = [x, weight, bias, mean, var]
        while inputs[-1] is None:
            inputs.pop()
        return Case(inputs, attrs, leaves=[i for i in range(3) if i < len(inputs) and inputs[i] is not None])

    return make


def embedding(r, dtype):
    rows, width = r.randint(2, 6), r.randint(1, 4)
    attrs = {}
    if r.chance(0.4):
        attrs["padding_idx"] = r.randrange(rows)
    return Case([r.tensor([rows, width], dtype, repeats=False), r.positions(r.shape(0, 3, empty=0), rows)], attrs, positions={1})


def labelled(smoothing):
    def make(r, dtype):
        classes = r.randint(2, 6)
        batch = [r.randint(1, 5)] if r.chance(0.85) else []
        rest = [r.randint(1, 3) for _ in range(r.choice([0, 0, 1, 2]))] if batch else []
        x = r.tensor([*batch, classes, *rest], dtype)
        if not smoothing:
            x = x.log_softmax(len(batch)).detach()
        attrs = {}
        if r.chance(0.7):
            attrs["reduction"] = r.choice(["mean", "sum", "none"])
        weight = r.tensor([classes], dtype, 0.2, 2, repeats=False) if r.chance(0.5) else None
        leaves = [0]
        if smoothing and r.chance(0.5):
            attrs["label_smoothing"] = r.uniform(0, 0.5)
        if smoothing and r.chance(0.3):
            target = r.tensor([*batch, classes, *rest], dtype, 0, 1, repeats=False)
            positions, leaves = (), [0, 1]
        else:
            target, positions = r.positions([*batch, *rest], classes), {1}
            if r.chance(0.4):
                attrs["ignore_index"] = r.randrange(classes) if r.chance(0.8) else -100
                if (target == attrs["ignore_index"]).all():  # the mean is nan
                    return Case([x, target], attrs, positions=positions, leaves=leaves, order=1)
        return Case([x, target] + ([weight] if weight is not None else []), attrs, positions=positions, leaves=leaves)

    return make


def dropout(r, dtype):
    x = r.tensor(r.shape(), dtype)
    return Case([x], {"p": 0.0} if r.chance(0.5) else {"training": False})


MAKERS = {
    "sum": reduction, "mean": reduction, "prod": product,
    "amin": lambda r, d: reduction(r, d, nonempty=True, distinct=True),
    "amax": lambda r, d: reduction(r, d, nonempty=True, distinct=True),
    **{name: lambda r, d: reduction(r, d, over=False, nonempty=True, distinct=True)
       for name in ("min", "max", "argmin", "argmax")},
    "any": reduction, "all": reduction, "count_nonzero": reduction,
    "norm": norm,
    "logsumexp": lambda r, d: reduction(r, d, nonempty=True),
    "var": variance, "std": variance, "cumsum": scanning, "cumprod": scanning,
    "softmax": softmax, "log_softmax": softmax,
    "alias": one(), "contiguous": one(), "nonzero": one(),
    "transpose": transpose, "permute": permute, "view": reshape(True), "reshape": reshape(False),
    "expand": expand, "select": select, "narrow": narrow_call, "squeeze": squeeze, "unsqueeze": unsqueeze,
    "diagonal": diagonal, "unfold": unfold, "as_strided": as_strided, "embed": embed_call,
    "assign": assign_call, "cast": cast, "to": cast, "flatten": flatten,
    "transfer": lambda r, d: Case([r.tensor(r.shape(), d)], {"device": "cpu"}),
    "gather": gather, "scatter": scatter_call(False), "scatter_add": scatter_call(True),
    "index_select": index_select, "index_add": index_add, "take": take, "index": index_call,
    "index_put": index_put, "masked_select": masked("select"), "masked_fill": masked("fill"),
    "masked_scatter": masked("scatter"), "cat": listed("cat"), "stack": listed("stack"), "pad": pad,
    "sort": sorting("sort"), "argsort": sorting("argsort"), "topk": sorting("topk"),
    "unique": unique, "searchsorted": searchsorted_call, "flip": flip, "roll": roll_call, "tile": tile,
    "repeat_interleave": repeat_interleave, "tril": triangle, "triu": triangle, "one_hot": one_hot,
    "zeros": creation(shape=lambda r: r.shape()), "ones": creation(shape=lambda r: r.shape()),
    "full": creation(shape=lambda r: r.shape(), fill_value=lambda r: float(r.randint(0, 9))),
    "eye": creation(n=lambda r: r.randint(0, 5), m=lambda r: r.randint(0, 5)),
    "arange": arange, "linspace": linspace,
    "matmul": matmul, "bmm": bmm, "linear": linear, "conv2d": conv2d,
    "conv2d_input": conv2d_backward("input"), "conv2d_weight": conv2d_backward("weight"),
    "max_pool2d": pool, "max_pool2d_with_indices": pool,
    "avg_pool2d": lambda r, d: pool(r, d, True), "adaptive_avg_pool2d": adaptive,
    "layer_norm": normal(True), "rms_norm": normal(False),
    "batch_norm": batch_normal(False), "batch_norm_training": batch_normal(True),
    "embedding": embedding, "cross_entropy": labelled(True), "nll_loss": labelled(False),
    "dropout": dropout,
}

# Rows whose integers wrap around like torch's.
WRAPS = {"add", "sub", "mul", "neg", "square", "abs", "eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum",
         "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "sign", "clamp", "where", "addcmul"}
# The highest order of gradients that the peer has.
ORDER = {}
# Bounds that are this much looser, with the reason beside.
LOOSER = {
    # the gradients of a batch of two or three nearly cancel out
    ("batch_norm", "float32"): 20, ("batch_norm_training", "float32"): 20, ("layer_norm", "float32"): 20,
}
# Dtypes in which an op is not compared, with the reason.
NOT_IN = {
    ("topk", "bool"): "which of equal elements is not defined in torch",
    ("batch_norm_training", "float16"): "its statistics are float32",
    ("batch_norm_training", "bfloat16"): "its statistics are float32",
    ("clamp", "bool"): "stays bool; torch gives int64",
    ("square", "bool"): "stays bool; torch computes pow(x, 2) in int64",
    ("any", "uint8"): "bool like every other dtype; torch keeps uint8 for old programs",
    ("all", "uint8"): "bool like every other dtype; torch keeps uint8 for old programs",
}
