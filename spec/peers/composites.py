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
    m, batch = r.choice([r.randint(1, 6), 12, 20]), [] if r.chance(0.5) else [r.randint(1, 3)]
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
