"""Random calls of the ops that are not elementwise rows: MAKERS, by the op's name; each takes
random numbers and a dtype and gives a Case. Positions and dimensions count from 0. Read next:
cases.py, matrix_makers.py (factorizations and what uses them), table.py."""
import math

import torch

from cases import FLOATS, INTS, Case
from matrix_makers import MATRIX_MAKERS


def wide(r, dtype):
    return (-9, 9) if dtype in INTS else (-2, 2)


def reduction(r, dtype, over=True, p=False, nonempty=False, distinct=False):
    shape = r.shape(0, 4, 6, 0 if nonempty else 0.04)
    if r.chance(0.1) and not (distinct and dtype in (torch.float16, torch.bfloat16)):
        shape = [r.randint(100, 3000)]
    lo, hi = wide(r, dtype)
    if dtype in FLOATS and 100 <= max(shape, default=0):
        lo = 0.3  # a long sum of both signs can cancel out
    x = r.distinct(shape, dtype, lo, hi) if distinct else r.tensor(shape, dtype, lo, hi)
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


def among_nan(r, dtype):
    c = reduction(r, dtype)
    x = c.inputs[0]
    if dtype in FLOATS and r.chance(0.8):
        nan = torch.rand(x.shape, generator=r.generator, dtype=torch.float64) < r.choice([0.1, 0.5, 1])
        c.inputs[0] = x.clone().masked_fill(nan, float("nan"))
    return c


def norm(r, dtype):
    c = reduction(r, dtype, p=True, nonempty=True, distinct=True)
    if c.attrs.get("p") == 0.5 and dtype in (torch.float16, torch.bfloat16):
        c.attrs["p"] = 1.0  # (sum |x|^(1/2))^2 leaves their range
    if c.inputs[0].numel():  # at 0 torch's second gradients are nan, Nyx's 0
        x = c.inputs[0]
        c.inputs[0] = torch.where(x == 0, torch.ones_like(x), x)
    return c


def product(r, dtype):
    c = reduction(r, dtype)
    if dtype not in INTS and c.inputs[0].numel() > 50:
        c.inputs[0] = c.inputs[0].reshape(-1)[:20]
        c.attrs.pop("dim", None), c.attrs.pop("keepdim", None)
    if dtype in FLOATS and r.chance(0.3) and c.inputs[0].numel():
        c.inputs[0] = torch.where(c.inputs[0] > 1.5, 0, c.inputs[0])
    return c


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


def running(r, dtype):
    shape = r.shape(0, 4, empty=0)  # torch's derivatives of nothing fail
    # torch's derivative of logcumsumexp in forward mode is nan where the input repeats elements
    return Case([r.tensor(shape, dtype, *wide(r, dtype), repeats=False)], {"dim": r.dim(len(shape))})


def softmax(r, dtype):
    shape = r.shape(1, 4) if r.chance(0.85) else [r.randint(1, 5), r.randint(20, 400)]
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


def scatter_region(r, dtype):
    shape = r.shape(1, 3, 4, 0)
    stride, step = [], 1
    for n in shape:
        stride.append(step)
        step *= n * r.choice([1, 2])
    offset = r.randint(0, 3)
    return Case([r.tensor([step + offset + 1], dtype, plain=True), r.tensor(shape, dtype)],
                {"stride": stride, "offset": offset})


def assign_call(r, dtype):
    shape = r.shape(1, empty=0)
    start = [r.randrange(n) for n in shape]
    step = [r.choice([1, 1, 2]) for _ in shape]
    length = [r.randint(1, -(-(n - s) // k)) for n, s, k in zip(shape, start, step)]
    own = [1 if r.chance(0.2) else n for n in length][r.randint(0, len(length)) if r.chance(0.3) else 0:]
    return Case([r.tensor(shape, dtype, repeats=False), r.tensor(own, dtype)],
                {"start": start, "length": length, "step": step})


def cast(r, dtype):
    to = r.choice(list(FLOATS) + list(INTS) + [torch.bool])
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
        more = 0 if dtype in FLOATS else 1  # torch's gradient wants equal sizes
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
        attrs["alpha"] = 2 if dtype not in FLOATS else 0.5
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
        size = 7 if dtype in FLOATS else 4
        shape = r.shape(1, 3, size, empty=0) if kind == "order_statistic" else r.shape(1, 3, size)
        if r.chance(0.15) and dtype in FLOATS[:2]:
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
        elif kind == "order_statistic":
            attrs["k"] = r.randint(1, shape[attrs.get("dim", -1)])
        elif r.chance(0.5):
            attrs["descending"] = r.chance(0.7)
        if kind in ("sort", "argsort"):
            attrs["stable"] = True
        return Case([x], attrs)

    return make


def unique(r, dtype):
    return Case([r.tensor(r.shape(empty=0, size=9), torch.int64 if dtype in FLOATS else dtype, -5, 5).to(dtype)])


def searchsorted_call(r, dtype):
    shape = r.shape(1, 3, 7)
    x = r.tensor(shape, torch.int64, 0, 9, plain=True).to(dtype).sort(-1).values
    own = list(shape)
    own[-1] = r.randint(0, 5)
    values = r.tensor(own if len(shape) > 1 else r.shape(), torch.int64, -1, 10, plain=True).to(dtype)
    return Case([x, values], {"right": r.chance(0.5)} if r.chance(0.7) else {})


def runs(r, dtype):
    x = r.tensor(r.shape(0, 3, 9), torch.int64, 0, 2, plain=True)
    if r.chance(0.2):  # several pieces and blocks
        x = r.tensor([r.randint(1000, 40000)], torch.int64, 0, 9, plain=True).clamp(max=r.randint(1, 9))
        x = x.sort().values if r.chance(0.3) else x
    return Case([x.to(dtype)], order=0)


def bin_counts(r, dtype):
    """Integers between edges that are not: nothing depends on how a quotient is rounded."""
    n = r.randint(0, 60) if r.chance(0.7) else r.randint(70000, 140000)
    x = r.tensor([n] if r.chance(0.7) or n > 60 else r.shape(), torch.int64, 0, 20, plain=True).to(dtype)
    if r.chance(0.4):
        low, bins = r.randint(0, 9) - 0.5, r.randint(1, 12)
        return Case([x], {"bins": bins, "min": low, "max": low + bins}, order=0)
    edges = torch.tensor([float(v) for v in sorted(r.sample(range(20), r.randint(2, 9)))], dtype=torch.float64)
    attrs = {"even": r.chance(0.5)} if r.chance(0.5) else {}
    inputs = [x, edges]
    if r.chance(0.5):
        inputs.append(r.tensor(list(x.shape), torch.int64, 0, 3, plain=True).to(torch.float64))
    return Case(inputs, attrs, order=0)


def matmul_add(r, dtype):
    n, m, k = (r.choice([r.randint(1, 5), r.randint(15, 40)]) for _ in range(3))
    batch = [r.randint(1, 3) for _ in range(r.randint(0, 2))]
    full = batch + [n, m]
    own = [1 if r.chance(0.2) else s for s in full][r.randint(0, len(full)) if r.chance(0.3) else 0:]
    attrs = {name: r.choice([1.0, 2.0, -0.5, 0.75]) for name in ("beta", "alpha") if r.chance(0.5)}
    b_batch = batch if r.chance(0.7) else []
    return Case([r.tensor(own, dtype), r.tensor(batch + [n, k], dtype), r.tensor(b_batch + [k, m], dtype)], attrs)


def distances(r, dtype):
    k, batch = r.choice([r.randint(1, 6), 12, 20]), [] if r.chance(0.5) else [r.randint(1, 3)]
    sizes = r.choice([r.randint(1, 5), r.randint(17, 40)]), r.choice([r.randint(1, 5), r.randint(17, 70)])
    own = [batch, batch if r.chance(0.6) else []]
    x, y = (r.distinct(own[i] + [n, k], dtype) + i * 0.01 for i, n in enumerate(sizes))
    return Case([x, y], {"p": r.choice([1.0, 2.0, float("inf")])} if r.chance(0.8) else {})


def cross_product(r, dtype):
    shape = r.shape(1)
    dim = r.dim(len(shape))
    shape[dim] = 3
    return Case([r.tensor(shape, dtype), r.tensor(shape, dtype)], {"dim": dim})


def kron_product(r, dtype):
    batch = [] if r.chance(0.5) else [r.randint(1, 3)]
    shapes = [(batch if r.chance(0.7) else []) + [r.randint(0, 5), r.choice([1, 3, 9, 17])] for _ in range(2)]
    return Case([r.tensor(shape, dtype) for shape in shapes])


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
    step = r.choice([1.0, 2.0, 3.0] + [0.25, 0.1] * (dtype in FLOATS))
    return Case([], {"start": min(start, stop), "stop": max(start, stop), "step": step, "dtype": dtype})


def linspace(r, dtype):
    dtype = dtype if dtype in FLOATS else torch.float64
    return Case([], {"start": r.uniform(-5, 5), "stop": r.uniform(-5, 5), "steps": r.randint(0, 20), "dtype": dtype})


def side(r, dtype):
    """Of a matrix: mostly within a tile; of half types sometimes beyond the blocks of their
    products, where sums of float32 would need bounds that grow with their length."""
    if r.chance(0.88):
        return r.choice([0, 1, 2, 3, 5, 8, 17])
    half = dtype in (torch.float16, torch.bfloat16)
    return r.randint(200, 1100) if half and r.chance(0.4) else r.randint(30, 70)


def matmul(r, dtype):
    m, k, n = (side(r, dtype) for _ in range(3))
    if r.chance(0.15):
        return Case([r.tensor([k], dtype), r.tensor([k], dtype)])
    a, b = r.broadcast(2, 2)
    if r.chance(0.15):
        return Case([r.tensor([k], dtype), r.tensor([*b, k, n], dtype)])
    if r.chance(0.15):
        return Case([r.tensor([*a, m, k], dtype), r.tensor([k], dtype)])
    return Case([r.tensor([*a, m, k], dtype), r.tensor([*b, k, n], dtype)])


def int_mm(r, dtype):
    c = matmul(r, dtype)
    low = 0 if dtype == torch.uint8 else -128
    ranges = [(dtype, low, low + 255), (torch.int8, -128, 127)]
    return Case([r.tensor(list(x.shape), *kind) for x, kind in zip(c.inputs, ranges)])


def int_mm_reaching(r, dtype):
    """Numbers whose sums are exact, so that limits are met by some."""
    q, n, k = r.randint(0 if r.chance(0.05) else 1, 60), r.randint(0 if r.chance(0.05) else 1, 60), r.randint(0, 9)
    numbers = [r.tensor([size], torch.int8, -20, 20).float() for size in (n, n, q)]
    return Case([r.tensor([q, k], dtype, -9, 9), r.tensor([n, k], dtype, -9, 9), *numbers])


def bmm(r, dtype):
    b, m, k, n = (r.randint(0 if r.chance(0.05) else 1, 6) for _ in range(4))
    return Case([r.tensor([b, m, k], dtype), r.tensor([b, k, n], dtype)])


def linear(r, dtype):
    features, out = side(r, dtype), side(r, dtype)
    inputs = [r.tensor([*r.shape(0, 3), features], dtype), r.tensor([out, features], dtype)]
    if r.chance(0.6):
        inputs.append(r.tensor([out], dtype))
    return Case(inputs)


def linear_activation(r, dtype):
    x, weight, *bias = linear(r, dtype).inputs
    attrs = {"keep": r.chance(0.5)}
    if r.chance(0.8):
        attrs["activation"] = r.choice(["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus", "elu"])
    residual, other = (r.tensor([*x.shape[:-1], len(weight)], dtype) if r.chance(0.5) else None for _ in range(2))
    if other is not None:
        attrs["activation"] = r.choice(["swiglu", "geglu", "gate", "mul"])
    return Case([x, weight, bias[0] if bias else None, residual, other], attrs)


def quantized(r, dtype, features, outputs, int4):
    """A weight of few bits: packed, scales, zeros or None."""
    step = 2 if int4 else 1
    groups = r.choice([n for n in range(1, features + 1) if features % n == 0 and features // n % step == 0])
    kind, low = (torch.uint8, 0) if int4 else (torch.int8, -128)
    shape = [outputs] if groups == 1 and r.chance(0.5) else [outputs, groups]
    packed = r.tensor([outputs, features // step], kind, low, low + 255)
    zeros = r.tensor(shape, dtype, 5, 10) if r.chance(0.5) else None
    return [packed, r.tensor(shape, dtype, 0.01, 0.1), zeros]


def dequantize_weight(r, dtype):
    kind = dtype if dtype in FLOATS else r.choice(FLOATS)
    return Case(quantized(r, kind, 2 * r.randint(1, 40), r.randint(1, 20), r.chance(0.6)))


def linear_quantized(r, dtype):
    features, outputs = 2 * r.choice([1, 2, 3, 8, 16, 50]), r.choice([1, 2, 5, 17, 40])
    x = r.tensor([*r.shape(0, 3), features], dtype)
    bias = r.tensor([outputs], dtype) if r.chance(0.5) else None
    return Case([x, *quantized(r, dtype, features, outputs, r.chance(0.6)), bias])


def pair(r, low, high):
    return [r.randint(low, high), r.randint(low, high)]


def conv_parts(r, large=True):
    groups = r.choice([1, 1, 1, 2, 3])
    cin, cout = groups * r.randint(1, 3), groups * r.randint(1, 3)
    if large and r.chance(0.1):
        return large_conv_parts(r)
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


def large_conv_parts(r):
    """Kernels that are large enough for Fourier transforms (core/op/fourier_sizes.c)."""
    if r.chance(0.3):
        return 1, 3, 4, [1, 150], [1, r.randint(900, 1000)], {"padding": [0, r.randint(0, 75)]}
    kernel = [r.randint(19, 22), r.randint(19, 22)]
    size = [r.randint(42, 48), r.randint(42, 48)]
    attrs = {"padding": [r.randint(8, 11), r.randint(8, 11)]}
    if r.chance(0.5):
        return 4, 4, 4, kernel, size, {**attrs, "groups": 4}
    return 1, 3, 4, kernel, size, attrs


def conv2d(r, dtype, large=True):
    groups, cin, cout, kernel, size, attrs = conv_parts(r, large)
    batch = [r.randint(1, 3)] if r.chance(0.85) else []
    inputs = [r.tensor([*batch, cin, *size], dtype), r.tensor([cout, cin // groups, *kernel], dtype)]
    if r.chance(0.6):
        inputs.append(r.tensor([cout], dtype))
    return Case(inputs, attrs)


def conv2d_activation(r, dtype):
    x, weight, *bias = (case := conv2d(r, dtype, False)).inputs
    attrs = {**case.attrs, "keep": r.chance(0.5)}
    if r.chance(0.8):
        attrs["activation"] = r.choice(["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus", "elu"])
    stride, padding, dilation = (attrs.get(n, p) for n, p in
                                 (("stride", [1, 1]), ("padding", [0, 0]), ("dilation", [1, 1])))
    out = [(s + 2 * p - d * (k - 1) - 1) // t + 1
           for s, p, d, k, t in zip(x.shape[-2:], padding, dilation, weight.shape[2:], stride)]
    residual = r.tensor([*x.shape[:-3], len(weight), *out], dtype) if r.chance(0.5) else None
    return Case([x, weight, bias[0] if bias else None, residual], attrs)


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
    # with ceil_mode a window may be larger than what there is
    over = [s - 1 if attrs.get("ceil_mode") else 0 for s in attrs.get("stride", kernel)]
    # and one whose first taps are padding may step over what there is: there PyTorch 2.13 writes out of bounds
    size = [max(d, d * (k - 1) + 1 - o + r.randint(0, 6)) for d, k, o in zip(dilation, kernel, over)]
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
        shape = [r.randint(4, 6), channels] + ([r.randint(1, 4) for _ in range(r.choice([0, 1, 2]))])
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


def group_normal(r, dtype):
    groups, size = r.randint(1, 3), r.randint(1, 3)
    shape = [r.randint(0, 3), groups * size] + [r.choice([1, 2, 3, 7]) for _ in range(r.choice([0, 1, 2, 2, 3]))]
    if size * math.prod(shape[2:]) < 3:  # two elements, normalized, are 1 and -1: their gradients cancel out
        shape[2:] = [3, *shape[3:]]
    if r.chance(0.3):
        shape[2:] = [r.randint(5, 7), r.randint(5, 7)]
    x = r.tensor(shape, dtype, repeats=False)
    if len(shape) == 4 and r.chance(0.5):
        x = x.contiguous(memory_format=torch.channels_last)
    inputs = [x]
    if r.chance(0.7):
        inputs.append(r.tensor([shape[1]], dtype))
        if r.chance(0.7):
            inputs.append(r.tensor([shape[1]], dtype))
    attrs = {"num_groups": groups}
    if r.chance(0.5):
        attrs["eps"] = r.uniform(1e-3, 0.1)
    return Case(inputs, attrs)


def attention(broadcast):
    """`broadcast`: leading dimensions that do, and queries that see nothing, too."""

    def make(r, dtype):
        queries, keys = (r.choice([1, 2, 3, 5, 9, 12, 40]) if r.chance(0.9) else 150 for _ in range(2))
        d, dv = r.randint(1, 6), r.randint(1, 6)
        lead = r.shape(0, 2, 3, 0) if r.chance(0.8) else None  # None: no heads either
        heads = r.randint(1, 3)
        group = r.randint(2, 3) if r.chance(0.3) else 1

        def side(n, rows, columns):
            if lead is None:
                return r.tensor([rows, columns], dtype)
            own = [1 if broadcast and r.chance(0.2) else size for size in lead]
            return r.tensor([*own, n, rows, columns], dtype)

        inputs = [side(heads * group, queries, d), side(heads, keys, d), side(heads, keys, dv)]
        attrs = {}
        if r.chance(0.5):
            attrs["is_causal"] = True
            if r.chance(0.5):
                attrs["offset"] = r.randint(0 if not broadcast else -3, keys)
        if r.chance(0.4):
            attrs["scale"] = r.uniform(0.1, 1.2)
        if r.chance(0.6):
            full = list(torch.broadcast_shapes(*(x.shape[:-3] for x in inputs)))
            full = (full + [heads * group] if lead is not None else []) + [queries, keys]
            own = [1 if r.chance(0.2) else size for size in full]
            own = own[r.randint(0, len(own) - 1):]
            mask = r.mask(own) if r.chance(0.6) else r.tensor(own, dtype, repeats=False)
            if mask.dtype == torch.bool and not broadcast:
                mask = mask.clone()
                mask[..., 0] = True  # no log-sum-exp of nothing
            inputs.append(mask)
        return Case(inputs, attrs)

    return make


def rotary(r, dtype):
    """With and without tables, which may be of another float dtype, and positions."""
    length, features = r.randint(1, 5), r.randint(1, 9) if r.chance(0.8) else r.randint(10, 140)
    lead = r.shape(0, 2, 3)
    inputs = [r.tensor([*lead, length, features], dtype), None, None, None]
    attrs = {name: True for name in ("interleaved", "reverse") if r.chance(0.5)}
    dim = 2 * r.randint(0, features // 2)
    if r.chance(0.5):
        attrs["offset"] = r.randint(0, 9)
    if r.chance(0.5):
        own = [1 if r.chance(0.3) else size for size in lead]
        inputs[1] = r.positions([*own[r.randint(0, len(own)):], length], 12)
    if r.chance(0.5):
        inputs[2], inputs[3] = (r.tensor([22, dim // 2], dtype) for _ in range(2))
    else:
        attrs["dim"] = dim
        if r.chance(0.5):
            attrs["base"] = r.uniform(2, 500)
    while inputs[-1] is None:
        inputs.pop()
    return Case(inputs, attrs, positions={1})


def glu(r, dtype):
    half = r.randint(1, 6) if r.chance(0.8) else r.randint(7, 5000)
    attrs = {"activation": r.choice(["sigmoid", "silu", "gelu"])} if r.chance(0.8) else {}
    return Case([r.tensor([*r.shape(0, 2, 3), 2 * half], dtype)], attrs)


def recurrence(r, dtype):
    mode = r.choice(["lstm", "gru", "tanh", "relu"])
    length, n, features, hidden = r.randint(1, 4), r.randint(1, 3), r.randint(1, 4), r.randint(1, 5)
    rows = {"lstm": 4, "gru": 3}.get(mode, 1) * hidden
    state = r.randint(1, 4) if mode == "lstm" and r.chance(0.4) else None
    inputs = [r.tensor([length, n, features], dtype), r.tensor([rows, features], dtype), r.tensor([rows, state or hidden], dtype)]
    biases = r.chance(0.6)  # torch has both or none
    inputs += [r.tensor([rows], dtype) if biases else None for _ in range(2)]
    inputs.append(r.tensor([n, state or hidden], dtype) if r.chance(0.5) else None)
    inputs.append(r.tensor([n, hidden], dtype) if mode == "lstm" and r.chance(0.5) else None)
    inputs.append(r.tensor([state, hidden], dtype) if state else None)
    inputs.append(r.positions([n], length + 1) if r.chance(0.4) else None)
    while inputs[-1] is None:
        inputs.pop()
    attrs = {"mode": mode}
    if r.chance(0.4):
        attrs["reverse"] = True
    return Case(inputs, attrs)


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


def zeta(r, dtype):
    inputs = [r.tensor(s, dtype, 2, 5) for s in r.broadcast(2)]
    return Case(inputs, leaves=[1] if dtype in FLOATS else None)


MAKERS = {
    "zeta": zeta,
    **MATRIX_MAKERS,
    "sum": reduction, "nansum": among_nan, "mean": reduction, "prod": product,
    "amin": lambda r, d: reduction(r, d, nonempty=True, distinct=True),
    "amax": lambda r, d: reduction(r, d, nonempty=True, distinct=True),
    **{name: lambda r, d: reduction(r, d, over=False, nonempty=True, distinct=True)
       for name in ("min", "max", "argmin", "argmax")},
    "any": reduction, "all": reduction, "count_nonzero": reduction,
    "norm": norm,
    "logsumexp": lambda r, d: reduction(r, d, nonempty=True),
    "var": variance, "std": variance, "cumsum": scanning, "cumprod": scanning,
    "logcumsumexp": running, "cumargmax": running,
    "softmax": softmax, "log_softmax": softmax,
    "alias": one(), "contiguous": one(), "relayout": one(), "nonzero": one(),
    "transpose": transpose, "permute": permute, "view": reshape(True), "reshape": reshape(False),
    "expand": expand, "select": select, "narrow": narrow_call, "squeeze": squeeze, "unsqueeze": unsqueeze,
    "diagonal": diagonal, "unfold": unfold, "as_strided": as_strided, "embed": embed_call,
    "as_strided_scatter": scatter_region,
    "assign": assign_call, "cast": cast, "to": cast, "flatten": flatten,
    "transfer": lambda r, d: Case([r.tensor(r.shape(), d)], {"device": "cpu"}),
    "gather": gather, "scatter": scatter_call(False), "scatter_add": scatter_call(True),
    "index_select": index_select, "index_add": index_add, "take": take, "index": index_call,
    "index_put": index_put, "masked_select": masked("select"), "masked_fill": masked("fill"),
    "masked_scatter": masked("scatter"), "cat": listed("cat"), "stack": listed("stack"), "pad": pad,
    "sort": sorting("sort"), "argsort": sorting("argsort"), "topk": sorting("topk"),
    "order_statistic": sorting("order_statistic"),
    "unique": unique, "runs": runs, "bin_counts": bin_counts, "matmul_add": matmul_add, "distances": distances,
    "cross_product": cross_product, "kron_product": kron_product,
    "searchsorted": searchsorted_call, "flip": flip, "roll": roll_call, "tile": tile,
    "repeat_interleave": repeat_interleave, "tril": triangle, "triu": triangle, "one_hot": one_hot,
    "zeros": creation(shape=lambda r: r.shape()), "ones": creation(shape=lambda r: r.shape()),
    "full": creation(shape=lambda r: r.shape(), fill_value=lambda r: float(r.randint(0, 9))),
    "eye": creation(n=lambda r: r.randint(0, 5), m=lambda r: r.randint(0, 5)),
    "arange": arange, "linspace": linspace,
    "matmul": matmul, "int_mm": int_mm, "int_mm_reaching": int_mm_reaching, "bmm": bmm, "linear": linear, "linear_activation": linear_activation,
    "linear_quantized": linear_quantized, "dequantize_weight": dequantize_weight, "conv2d": conv2d,
    "conv2d_activation": conv2d_activation,
    "conv2d_input": conv2d_backward("input"), "conv2d_weight": conv2d_backward("weight"),
    "max_pool2d": pool, "max_pool2d_with_indices": pool,
    "avg_pool2d": lambda r, d: pool(r, d, True), "adaptive_avg_pool2d": adaptive,
    "layer_norm": normal(True), "rms_norm": normal(False),
    "group_norm": group_normal, "batch_norm": batch_normal(False), "batch_norm_training": batch_normal(True),
    "scaled_dot_product_attention": attention(True), "attention": attention(False),
    "recurrence": recurrence, "rotary": rotary, "glu": glu,
    "embedding": embedding, "cross_entropy": labelled(True), "nll_loss": labelled(False),
    "dropout": dropout,
}
