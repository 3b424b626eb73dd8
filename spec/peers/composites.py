"""Functions made of ops (lua/nyx/einsum.lua, products.lua, statistics.lua) against torch's, on
random calls, as ops are: values, first and second gradients, forward mode. Read next: ops.py."""
import torch

import ops
from cases import FLOATS, Case


class Call(Case):
    """A call in Lua, with $1, $2, ... for the inputs, and the peer's."""

    def __init__(self, lua, inputs, peer, **more):
        super().__init__(inputs, peer=peer, **more)
        self.lua = lua


class Composite:
    """What ops.run_case wants of an op."""
    differentiable, kind, peer = True, "composite", None

    def __init__(self, name, maker, dtypes):
        self.name, self.maker, self.dtypes = name, maker, dtypes

    def make(self, r, dtype):
        return self.maker(r, dtype)

    def call_text(self, case, names):
        text = case.lua
        for i in reversed(range(len(names))):
            text = text.replace(f"${i + 1}", names[i])
        return text


COMPOSITES = {}
F64, F32 = "float64", "float32"
FLOAT, NUMBER = (F64, F32), (F64, F32, "int64")


def composite(*dtypes):
    def add(maker):
        name = maker.__name__.rstrip("_")
        COMPOSITES[name] = Composite(name, maker, dtypes)
        return maker
    return add


def table(values):
    return "{" + ",".join(str(v) for v in values) + "}"


def one_based(dim):
    return dim + 1 if dim >= 0 else dim


# ------------------------------------------------------------------- products


@composite(*NUMBER)
def einsum(r, dtype):
    letters = r.sample("abijkXYZ", r.randint(1, 5))
    size = {c: r.randint(0 if r.chance(0.05) else 1, 4) for c in letters}
    dots = [r.randint(1, 3) for _ in range(r.randint(0, 2))]
    parts, inputs = [], []
    for _ in range(r.randint(1, 4)):
        own = [r.choice(letters)] if r.chance(0.1) else r.sample(letters, r.randint(0, min(len(letters), 4)))
        if own and r.chance(0.15):
            own.insert(r.randint(0, len(own)), r.choice(own))  # a diagonal
        shape = [size[c] for c in own]
        for i, c in enumerate(own):
            if own.count(c) == 1 and r.chance(0.1):
                shape[i] = 1
        if r.chance(0.3):
            at, more = r.randint(0, len(own)), dots[r.randint(0, len(dots)):]
            own.insert(at, "...")
            shape[at:at] = [1 if r.chance(0.2) else n for n in more]
        parts.append("".join(own))
        inputs.append(r.tensor(shape, dtype))
    equation = ",".join(parts)
    used = sorted(set(equation.replace(",", "").replace(".", "")))
    if r.chance(0.8):
        output = r.sample(used, r.randint(0, len(used)))
        if "..." in equation and r.chance(0.8):
            output.insert(r.randint(0, len(output)), "...")
        equation += "->" + "".join(output)
    if r.chance(0.2):
        equation = equation.replace(",", " , ").replace("->", " -> ")
    args = ",".join(f"${i + 1}" for i in range(len(inputs)))

    def peer(*xs):
        if dtype not in FLOATS:  # torch sums int32 and int64 to int64 and then refuses to multiply
            return torch.einsum(equation, *xs).to(torch.int64)
        return torch.einsum(equation, *xs)

    return Call(f'nyx.einsum("{equation}",{args})', inputs, peer)


@composite(*NUMBER)
def tensordot(r, dtype):
    n = r.randint(0, 2)
    summed = [r.randint(1, 4) for _ in range(n)]
    left, right = [r.randint(1, 3) for _ in range(r.randint(0, 2))], [r.randint(1, 3) for _ in range(r.randint(0, 2))]
    if r.chance(0.5):
        return Call(f"$1:tensordot($2,{n})", [r.tensor(left + summed, dtype), r.tensor(summed + right, dtype)],
                    lambda x, y: torch.tensordot(x, y, n))
    x, y = r.tensor(left + summed, dtype), r.tensor(summed + right, dtype)
    of_x, of_y = r.sample(range(x.ndim), x.ndim), r.sample(range(y.ndim), y.ndim)
    x, y = x.permute(of_x), y.permute(of_y)
    dims_x = [of_x.index(len(left) + i) for i in range(n)]
    dims_y = [of_y.index(i) - (y.ndim if r.chance(0.3) else 0) for i in range(n)]
    lua = f"nyx.tensordot($1,$2,{{{table(map(one_based, dims_x))},{table(map(one_based, dims_y))}}})"
    return Call(lua, [x, y], lambda a, b: torch.tensordot(a, b, (dims_x, dims_y)))


@composite(*NUMBER)
def inner(r, dtype):
    k = r.randint(1, 5)
    shapes = [r.shape(0, 2, 4) + [k] if r.chance(0.85) else [] for _ in range(2)]
    return Call("$1:inner($2)", [r.tensor(s, dtype) for s in shapes], torch.inner)


@composite(*NUMBER)
def kron(r, dtype):
    return Call("$1:kron($2)", [r.tensor(r.shape(0, 4, 3), dtype) for _ in range(2)],
                lambda x, y: torch.kron(x.reshape(-1).reshape(x.shape), y.reshape(-1).reshape(y.shape)))


@composite(*FLOAT)
def multi_dot(r, dtype):
    sizes = [r.randint(1, 5) for _ in range(r.randint(3, 6))]
    shapes = [list(pair) for pair in zip(sizes, sizes[1:])]
    if r.chance(0.3):
        shapes[0] = shapes[0][1:]
    if r.chance(0.3):
        shapes[-1] = shapes[-1][:1]
    args = ",".join(f"${i + 1}" for i in range(len(shapes)))
    return Call(f"nyx.multi_dot{{{args}}}", [r.tensor(s, dtype) for s in shapes],
                lambda *xs: torch.linalg.multi_dot(xs))


@composite(*NUMBER)
def vdot(r, dtype):
    n = r.randint(0, 20)
    return Call("$1:vdot($2)", [r.tensor([n], dtype), r.tensor([n], dtype)], torch.vdot)


@composite(*NUMBER)
def cross(r, dtype):
    shapes = r.broadcast(2, 3)
    at = r.randint(0, min(map(len, shapes)))
    shapes = [s[:len(s) - at] + [3] + s[len(s) - at:] for s in shapes]
    dim = -1 - at
    return Call(f"$1:cross($2,{dim})", [r.tensor(s, dtype) for s in shapes],
                lambda x, y: torch.linalg.cross(*torch.broadcast_tensors(x, y), dim=dim))


@composite(*FLOAT)
def cdist(r, dtype):
    p = r.choice([0.0, 1.0, 2.0, 2.0, 3.0, 1.5, float("inf")])
    m, batch = r.choice([r.randint(1, 6), 12, 20, 50]), [] if r.chance(0.5) else [r.randint(1, 3)]
    rows = r.choice([r.randint(1, 5), r.randint(26, 40)]), r.randint(1, 5)
    x, y = (r.distinct(batch + [n, m], dtype) + i * 0.01 for i, n in enumerate(rows))
    lua = f"$1:cdist($2,{'math.huge' if p > 9 else p})"
    # torch has no second derivative; from differences it has.
    return Call(lua, [x, y], lambda a, b: torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1))


def sum_and(name, peer, x_shape, shapes):
    def maker(r, dtype):
        n, m, k, b = (r.randint(1, 5) for _ in range(4))
        sizes = {"n": n, "m": m, "k": k, "b": b}
        full = [sizes[c] for c in x_shape]
        own = [1 if r.chance(0.2) else n for n in full][r.randint(0, len(full)) if r.chance(0.2) else 0:]
        inputs = [r.tensor(own, dtype), *(r.tensor([sizes[c] for c in s], dtype) for s in shapes)]
        options, given = "", {}
        if r.chance(0.6):
            given = {"beta": r.choice([0, 1, 2, -1]), "alpha": r.choice([1, 2, 3])}
            if dtype in FLOATS and r.chance(0.5):
                given = {k: v * 0.75 for k, v in given.items()}
            options = ",{" + ",".join(f"{k}={v}" for k, v in given.items()) + "}"
        return Call(f"$1:{name}($2,$3{options})", inputs, lambda *xs: peer(*xs, **given))

    COMPOSITES[name] = Composite(name, maker, NUMBER)


sum_and("addmm", torch.addmm, "nm", ("nk", "km"))
sum_and("addmv", torch.addmv, "n", ("nk", "k"))
sum_and("addr", torch.addr, "nm", ("n", "m"))
sum_and("baddbmm", torch.baddbmm, "bnm", ("bnk", "bkm"))
sum_and("addbmm", torch.addbmm, "nm", ("bnk", "bkm"))


# ------------------------------------------------------------------- special functions


@composite(*FLOAT)
def polygamma(r, dtype):
    n = r.randint(0, 4)
    text = f"nyx.polygamma({n},$1)" if r.chance(0.5) else f"$1:polygamma({n})"
    return Call(text, [r.tensor(r.shape(), dtype, 0.4, 9)], lambda x: torch.polygamma(n, x))


@composite(*FLOAT)
def mvlgamma(r, dtype):
    p = r.randint(1, 4)
    return Call(f"$1:mvlgamma({p})", [r.tensor(r.shape(), dtype, 2, 9)], lambda x: torch.mvlgamma(x, p))


@composite(*FLOAT)
def ldexp(r, dtype):
    x, y = (r.tensor(s, dtype) for s in r.broadcast(2))
    if r.chance(0.4):
        y = (y * 3).round().long()  # torch's own then has no gradient of x
        return Call("$1:ldexp($2)", [x, y], lambda x, y: x * torch.exp2(y.to(x.dtype)), leaves=[0])
    return Call("$1:ldexp($2)", [x, y], torch.ldexp)


@composite(*FLOAT)
def frexp(r, dtype):
    x = r.tensor(r.shape(), dtype) * 2.0 ** r.randint(-60, 60)
    x = x.masked_fill(r.mask(x.shape), r.choice([0.0, 1.0, -0.5, 2.0 ** 20]))
    return Call("$1:frexp()", [x], lambda x: tuple(torch.frexp(x)))


# ------------------------------------------------------------------- statistics


def lua_bool(value):
    return "true" if value else "false"


def with_nan(r, x, p=0.3):
    """x with some elements, or whole rows, replaced by nan."""
    x = x.clone()
    if r.chance(p) and x.dtype in FLOATS and x.numel():
        x[torch.rand(x.shape, generator=r.generator, dtype=torch.float64) < r.choice([0.1, 0.3, 0.9])] = float("nan")
    return x


def along(r, x, none=0.3):
    """A dimension or None, keepdim, and their text in Lua."""
    dim = None if r.chance(none) else r.dim(x.ndim)
    keepdim = r.chance(0.4)
    text = "nil" if dim is None else str(one_based(dim))
    return dim, keepdim, f"{text},{lua_bool(keepdim)}"


def middle(name, fn):
    def maker(r, dtype):
        x = with_nan(r, r.distinct(r.shape(0, 3, 6, 0), dtype, -50, 50))
        dim, keepdim, text = along(r, x)
        order = 0 if x.isnan().any() else 2  # torch shares the gradient of nan in its own way

        def peer(x):
            values, at = fn(x, dim, keepdim)
            return values, (at.masked_fill(values.isnan(), 0) if name == "nanmedian" else at)

        if dim is None:
            return Call(f"$1:{name}()", [x], fn, order=order)
        return Call(f"$1:{name}({text})", [x], peer, order=order)

    COMPOSITES[name] = Composite(name, maker, NUMBER)


middle("median", torch.median)
middle("nanmedian", torch.nanmedian)


def quantiles(name, fn):
    def maker(r, dtype):
        x = with_nan(r, r.distinct(r.shape(0, 3, 6, 0), dtype))
        dim, keepdim, text = along(r, x)
        order = 0 if x.isnan().any() else 2  # which nan gets the gradient is not said
        how = r.choice(["linear", "lower", "higher", "midpoint", "nearest"])
        if r.chance(0.5):
            q = r.choice([0.0, 0.5, 1.0, r.random()])
            return Call(f'$1:{name}({q},{text},"{how}")', [x],
                        lambda x: fn(x, q, dim, keepdim, interpolation=how), order=order)
        q = r.tensor([r.randint(1, 4)], dtype, 0, 1, plain=True)
        return Call(f'$1:{name}($2,{text},"{how}")', [x, q],
                    lambda x, q: fn(x, q.detach(), dim, keepdim, interpolation=how), leaves=[0], order=order)

    COMPOSITES[name] = Composite(name, maker, FLOAT)


quantiles("quantile", torch.quantile)
quantiles("nanquantile", torch.nanquantile)


@composite(*FLOAT)
def kthvalue(r, dtype):
    x = r.distinct(r.shape(0, 3, 6, 0), dtype, -50, 50)
    dim, keepdim, text = along(r, x, 0)
    k = r.randint(1, x.shape[dim] if x.ndim else 1)
    return Call(f"$1:kthvalue({k},{text})", [x], lambda x: tuple(torch.kthvalue(x, k, dim, keepdim)))


@composite(*NUMBER)
def mode(r, dtype):
    x = r.tensor(r.shape(0, 3, 8, 0), dtype, -2, 2)
    x = x.round() if dtype in FLOATS else x
    dim, keepdim, text = along(r, x, 0)

    def last_of_equals(x):  # torch does not say which of the positions it gives
        value = torch.mode(x, dim, keepdim).values
        full = value if keepdim or not x.ndim else value.unsqueeze(dim)
        equal = (x == full).flip(dim) if x.ndim else x == full
        at = equal.int().argmax(dim, keepdim)
        at = (x.shape[dim] - 1 - at) if x.ndim else at * 0
        return (x.gather(dim, at if keepdim else at.unsqueeze(dim)).reshape(value.shape) if x.ndim else x), at

    return Call(f"$1:mode({text})", [x], last_of_equals)


def running(name, fn):
    def maker(r, dtype):
        x = r.tensor(r.shape(0, 3, 7), dtype)
        x = with_nan(r, (x * 2).round() if dtype in FLOATS and r.chance(0.5) else x)
        dim = r.dim(x.ndim)
        return Call(f"$1:{name}({one_based(dim)})", [x], lambda x: tuple(fn(x, dim)))

    COMPOSITES[name] = Composite(name, maker, NUMBER)


running("cummax", torch.cummax)
running("cummin", torch.cummin)


@composite(*NUMBER)
def aminmax(r, dtype):
    x = with_nan(r, r.distinct(r.shape(0, 3, 5, 0), dtype, -50, 50))
    dim, keepdim, text = along(r, x)
    keepdim = keepdim and dim is not None
    text = text if dim is not None else "nil,false"
    return Call(f"$1:aminmax({text})", [x], lambda x: tuple(torch.aminmax(x, dim=dim, keepdim=keepdim)),
                order=0 if x.isnan().any() else 2)


@composite(*NUMBER)
def unique_consecutive(r, dtype):
    x = r.tensor(r.shape(0, 3, 5), dtype, 0, 1.6 if dtype in FLOATS else 1)
    x = x.floor() if dtype in FLOATS else x
    if r.chance(0.4) and x.ndim and x.numel():
        dim = r.dim(x.ndim)
        return Call(f"$1:unique_consecutive({one_based(dim)})", [x],
                    lambda x: torch.unique_consecutive(x, True, True, dim), order=0)
    return Call("$1:unique_consecutive()", [x], lambda x: torch.unique_consecutive(x, True, True), order=0)


@composite(*FLOAT)
def float_power(r, dtype):
    shapes = r.broadcast(2)
    x = r.tensor(shapes[0], dtype, 0.5, 2)
    if r.chance(0.4):
        p = r.choice([2, -1, 0.5, 3])
        return Call(f"$1:float_power({p})", [x], lambda x: torch.float_power(x, p), order=1 if dtype != torch.float64 else 2)
    return Call("$1:float_power($2)", [x, r.tensor(shapes[1], dtype)], torch.float_power)


@composite(*FLOAT)
def nanmean(r, dtype):
    x = with_nan(r, r.tensor(r.shape(0, 3, 5, 0), dtype), 0.8)
    dim, keepdim, text = along(r, x, 0)
    return Call(f"$1:nanmean({text})", [x], lambda x: torch.nanmean(x, dim, keepdim),
                order=0 if torch.nanmean(x, dim).isnan().any() else 2)  # torch's gradient is nan there


def spread(name, fn):
    def maker(r, dtype):
        x = r.distinct([r.randint(3, 5) for _ in range(r.randint(1, 3))], dtype)
        dim, keepdim, correction = r.dim(x.ndim), r.chance(0.5), r.choice([0, 1, 2])
        return Call(f"$1:{name}({one_based(dim)},{correction},{lua_bool(keepdim)})", [x],
                    lambda x: fn(x, dim, correction=correction, keepdim=keepdim))

    COMPOSITES[name] = Composite(name, maker, FLOAT)


spread("var_mean", torch.var_mean)
spread("std_mean", torch.std_mean)


@composite(*FLOAT)
def cov(r, dtype):
    n = r.randint(3, 8)
    x = r.distinct([n] if r.chance(0.2) else [r.randint(1, 4), n], dtype)
    inputs, options, peer = [x], [], {}
    if r.chance(0.5):
        peer["correction"] = r.choice([0, 1, 2])
        options.append(f"correction={peer['correction']}")
    for name, d in (("fweights", torch.int64), ("aweights", dtype)):
        if r.chance(0.4):
            inputs.append(r.values(n, d, 1, 3))
            options.append(f"{name}=${len(inputs)}")
            peer[name] = inputs[-1]
    return Call(f"$1:cov{{{','.join(options)}}}", inputs,
                lambda x, *w: torch.cov(x, **{**peer, **dict(zip([k for k in peer if k != "correction"], w))}),
                leaves=[0])


@composite(*FLOAT)
def corrcoef(r, dtype):
    n = r.randint(6, 9)
    return Call("$1:corrcoef()", [r.distinct([n] if r.chance(0.2) else [r.randint(2, 4), n], dtype)],
                lambda x: torch.corrcoef(x))


@composite(*FLOAT)
def renorm(r, dtype):
    x = r.distinct([r.randint(1, 4) for _ in range(r.randint(2, 3))], dtype)
    p, dim, most = r.choice([1.0, 2.0, 3.0]), r.dim(x.ndim), r.uniform(0.5, 3)
    # torch's second derivative is of a gradient kernel that leaves the 1e-7 out
    return Call(f"$1:renorm({p},{one_based(dim)},{most!r})", [x], lambda x: torch.renorm(x, p, dim, most), order=1)


@composite(*NUMBER)
def bucketize(r, dtype):
    x, edges = r.tensor(r.shape(), dtype), r.distinct([r.randint(0, 6)], dtype).sort().values
    right = r.chance(0.5)
    return Call(f"$1:bucketize($2,{lua_bool(right)})", [x, edges],
                lambda x, e: torch.bucketize(x.contiguous(), e, right=right), order=0)


@composite(*FLOAT)
def histc(r, dtype):
    x = r.tensor(r.shape(0, 3, 6, 0), dtype)  # evenly spaced ones lie on edges
    low, high = r.choice([(0, 0), (-1.03, 1.52), (-3.1, 4.2)])
    bins = r.randint(1, 12)
    return Call(f"$1:histc({bins},{low},{high})", [x], lambda x: torch.histc(x, bins, low, high), order=0)


@composite(*FLOAT)
def histogram(r, dtype):
    x = r.tensor(r.shape(0, 3, 6, 0), dtype)  # as histc's
    weight, density = r.chance(0.5), r.chance(0.3)
    inputs = [x, r.tensor(x.shape, dtype, 0.1, 1)] if weight else [x]
    options = ["weight=$2"] if weight else []
    options += ["density=true"] if density else []
    if r.chance(0.5):
        edges = r.distinct([r.randint(2, 6)], dtype).sort().values + 0.003
        inputs.append(edges)
        return Call(f"$1:histogram(${len(inputs)},{{{','.join(options)}}})", inputs,
                    lambda x, *w: torch.histogram(x, w[-1], weight=w[0] if weight else None, density=density), order=0)
    bins, range_ = r.randint(1, 12), r.choice([None, (-1.03, 1.52)])
    options += [f"range={{{range_[0]},{range_[1]}}}"] if range_ else []
    return Call(f"$1:histogram({bins},{{{','.join(options)}}})", inputs,
                lambda x, *w: torch.histogram(x, bins, range=range_, weight=w[0] if w else None, density=density),
                order=0)


# ------------------------------------------------------------------- all of them


def compare(tap, worker, options, chosen=()):
    """The composites, or those that are named."""
    for name, composite in COMPOSITES.items():
        if chosen and name not in chosen:
            continue
        counts = {d: options.cases if d == F64 else max(options.cases // 3, 1) for d in composite.dtypes}
        only = None
        if options.case:
            dtype, number = options.case.split("/")
            only = (dtype, int(number))
        report = ops.run_op(worker, composite, options.seed, counts, only)
        tap.result(f"{name}: {report.text()}", report.failures)
