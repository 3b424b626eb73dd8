"""nyx.func against torch.func: Jacobians, Hessians, products with them, vectorisation, per-sample
gradients and combinations of these, of random perceptrons, convolutional nets, attention
blocks, programs that write in place, and modules. A model is one function in two languages, over
parameters and one entry x; a transform is one expression in two languages, over a model.
Read next: MODELS and TRANSFORMS, ops.py."""
import warnings

import torch
import torch.nn as tnn
import torch.nn.functional as F
from torch.func import functional_call, grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._pytree import tree_flatten

from cases import Random
from ops import Mismatch, error_of
from worker import NyxError

BOUND = 1e-9
ENTRIES = 3  # of a batch


class Model:
    """f(p, x) and its text in Lua: the body of a function of p, a list of tensors, and x."""

    def __init__(self, params, x, f, lua, constants=()):
        self.p, self.x, self.f, self.lua, self.constants = params, x, f, lua, list(constants)

    def loss(self, p, x):
        y = self.f(p, x)
        return (y * y).mean() + (y * self.c).sum()


def fresh(r, *shape):
    return r.tensor(shape, lo=-1, hi=1, plain=True)


# ------------------------------------------------------------------------------ models

# Written in operations: torch's own layer_norm has wrong derivatives of third order and wrong
# second ones in forward mode (2.13; held against finite differences).


def layer_norm(x, shape, weight, bias, eps):
    dims = list(range(-len(shape), 0))
    y = x - x.mean(dims, keepdim=True)
    return y * torch.rsqrt((y * y).mean(dims, keepdim=True) + eps) * weight + bias


def rms_norm(x, shape, weight, eps):
    dims = list(range(-len(shape), 0))
    return x * torch.rsqrt((x * x).mean(dims, keepdim=True) + eps) * weight


def batch_norm(x, mean, var, weight, bias):
    """In evaluation, of one entry: (channels, height, width)."""
    mean, var, weight, bias = [t.reshape(-1, 1, 1) for t in (mean, var, weight, bias)]
    return (x - mean) * torch.rsqrt(var + 1e-5) * weight + bias


# Smooth ones, and ones with corners, where a random number does not fall.
ACTIVATIONS = [
    ("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("gelu", F.gelu), ("silu", F.silu), ("relu", F.relu),
    ("softplus", F.softplus), ("sin", torch.sin), ("mish", F.mish), ("leaky_relu", F.leaky_relu), ("erf", torch.erf),
]


def perceptron(r):
    widths = [r.randint(1, 5) for _ in range(r.randint(2, 5))]
    params, python, lua = [], [], []
    for a, b in zip(widths, widths[1:]):
        bias, (name, act) = r.chance(0.7), r.choice(ACTIVATIONS)
        at = len(params)
        params.append(fresh(r, b, a))
        if bias:
            params.append(fresh(r, b))
        if r.chance(0.5):
            lua.append(f"x = nyx.linear(x, p[{at + 1}]{f', p[{at + 2}]' if bias else ''}):{name}() ")
            python.append(lambda p, x, i=at, bias=bias, g=act: g(F.linear(x, p[i], p[i + 1] if bias else None)))
        else:
            lua.append(f"x = (p[{at + 1}]:matmul(x){f' + p[{at + 2}]' if bias else ''}):{name}() ")
            python.append(lambda p, x, i=at, bias=bias, g=act: g(p[i] @ x + (p[i + 1] if bias else 0)))

    def f(p, x):
        for layer in python:
            x = layer(p, x)
        return x

    return Model(params, fresh(r, widths[0]), f, "".join(lua) + "return x")


def conv_net(r):
    groups = r.choice([1, 1, 2])
    a, b = groups * r.randint(1, 2), groups * r.randint(1, 2)
    size = r.randint(5, 6)
    attrs = dict(stride=r.randint(1, 2), padding=r.randint(0, 2), dilation=r.choice([1, 1, 2]), groups=groups)
    kernel = [r.randint(1, 3), r.randint(1, 3)]
    text = ",".join(f"{k}={v}" for k, v in attrs.items())
    params = [fresh(r, b, a // groups, *kernel), fresh(r, b)]
    python = [lambda p, x: F.conv2d(x, p[0], p[1], **attrs)]
    lua = [f"x = x:conv2d(p[1], p[2], {{{text}}}) "]
    x = fresh(r, a, size, size)
    shape = list(python[0](params, x).shape)
    constants = []

    norm = r.choice(["batch", "layer", "rms", "none"])
    at = len(params)
    if norm == "batch":
        params += [fresh(r, b), fresh(r, b)]
        mean, var = fresh(r, b), fresh(r, b).abs() + 0.5
        constants = [mean, var]
        python.append(lambda p, x: batch_norm(x, mean, var, p[at], p[at + 1]))
        lua.append(f"x = x:unsqueeze(1):batch_norm(p[{at + 1}], p[{at + 2}], C[1], C[2], {{training=false}}):squeeze(1) ")
    elif norm == "layer":
        params += [fresh(r, *shape), fresh(r, *shape)]
        python.append(lambda p, x: layer_norm(x, shape, p[at], p[at + 1], 0.1))
        lua.append(f"x = x:layer_norm(p[{at + 1}], p[{at + 2}], {{normalized_shape={{{','.join(map(str, shape))}}}, eps=0.1}}) ")
    elif norm == "rms":
        params.append(fresh(r, shape[-1]))
        python.append(lambda p, x: rms_norm(x, shape[-1:], p[at], 0.1))
        lua.append(f"x = x:rms_norm(p[{at + 1}], {{normalized_shape={{{shape[-1]}}}, eps=0.1}}) ")

    name, act = r.choice(ACTIVATIONS)
    python.append(lambda p, x: act(x))
    lua.append(f"x = x:{name}() ")

    k = r.randint(1, min(2, *shape[1:]))
    pool = r.choice(["max", "average", "adaptive", "strided", "none"])
    if pool == "max":
        python.append(lambda p, x: F.max_pool2d(x, k))
        lua.append(f"x = x:max_pool2d({k}) ")
    elif pool == "strided":
        python.append(lambda p, x: F.max_pool2d(x, k, stride=1, padding=k // 2))
        lua.append(f"x = x:max_pool2d({k}, {{stride=1, padding={k // 2}}}) ")
    elif pool == "average":
        python.append(lambda p, x: F.avg_pool2d(x, k, stride=1))
        lua.append(f"x = x:avg_pool2d({k}, {{stride=1}}) ")
    elif pool == "adaptive":
        python.append(lambda p, x: F.adaptive_avg_pool2d(x, k))
        lua.append(f"x = x:adaptive_avg_pool2d({k}) ")

    python.append(lambda p, x: x.flatten())
    lua.append("x = x:flatten() ")
    y = x
    for layer in python:
        y = layer(params, y)
    params.append(fresh(r, 2, y.numel()))
    last = len(params) - 1
    python.append(lambda p, x: F.linear(x, p[last]))
    lua.append(f"return x:linear(p[{last + 1}])")

    def f(p, x):
        for layer in python:
            x = layer(p, x)
        return x

    return Model(params, x, f, "".join(lua), constants)


def attention(r):
    t, heads = r.randint(2, 3), r.randint(1, 2)
    d = heads * r.randint(1, 2)
    d, heads = (2, 1) if d == 1 else (d, heads)
    e = d // heads
    params = [fresh(r, d, 3 * d), fresh(r, d, d), fresh(r, d), fresh(r, d), fresh(r, d, 3), fresh(r, 3, d)]
    mask = torch.ones(t, t).triu(1).bool() if r.chance(0.6) else r.mask([t, t]).logical_and(~torch.eye(t).bool())
    fill = r.choice([-1e9, -float("inf")])
    name, act = r.choice(ACTIVATIONS[:4])
    first = r.chance(0.5)  # the norm comes before or after

    def norm(p, x):
        return layer_norm(x, [d], p[2], p[3], 0.05)

    def f(p, x):
        h = norm(p, x) if first else x
        q, k, v = [z.reshape(t, heads, e).transpose(0, 1) for z in (h @ p[0]).chunk(3, -1)]
        a = (q @ k.transpose(-2, -1) / e**0.5).masked_fill(mask, fill).softmax(-1)
        x = x + (a @ v).transpose(0, 1).reshape(t, d) @ p[1]
        x = x if first else norm(p, x)
        return x + act(x @ p[4]) @ p[5]

    lua = f"""
      local function norm(x) return x:layer_norm(p[3], p[4], {{normalized_shape={{{d}}}, eps=0.05}}) end
      local h = {'norm(x)' if first else 'x'}
      local parts = h:matmul(p[1]):chunk(3, -1)
      for i = 1, 3 do parts[i] = parts[i]:reshape{{{t}, {heads}, {e}}}:transpose(1, 2) end
      local q, k, v = parts[1], parts[2], parts[3]
      local a = (q:matmul(k:transpose(-2, -1)) / {e**0.5!r}):masked_fill(C[1],
        {'-math.huge' if fill < -1e10 else fill}):softmax(-1)
      x = x + a:matmul(v):transpose(1, 2):reshape{{{t}, {d}}}:matmul(p[2])
      {'' if first else 'x = norm(x)'}
      return x + x:matmul(p[5]):{name}():matmul(p[6])"""
    return Model(params, fresh(r, t, d), f, lua, [mask])


def program(r):
    """Indexing and changes in place, of a tensor made from x and all parameters."""
    n, m = r.randint(3, 4), r.randint(2, 3)
    params = [fresh(r, n, m), fresh(r, m), fresh(r, 2, m)]
    i, j, k = r.sample(range(n), 3)
    low = r.randrange(n - 1)
    column = r.randrange(m)
    index = r.positions([2], n)
    order = torch.tensor(r.sample(range(n), n))
    mask = r.mask([n, m])
    where = r.positions([n, m], n)
    constants = [index + 1, order + 1, mask, where + 1]

    def indexed(change):
        def run(p, y):
            return change(p, y) or y
        return run

    def set_row(p, y):
        y[i] = y[j].clone() * p[1]

    def row_times(p, y):
        y[low:low + 2] *= p[2]

    def set_column(p, y):
        y[:, column] = y[:, column].clone().sin() + p[1].sum()

    def add_turned(p, y):
        y.t()[column].add_(y[:, 0] * 2)

    def set_masked(p, y):
        y[mask] = 0.5

    def put(p, y):
        y.index_put_((index,), p[2], accumulate=True)

    steps = [
        (indexed(set_row), f"y[{i + 1}] = y[{j + 1}]:clone() * p[2] "),
        (indexed(row_times), f"y[{{{{{low + 1}, {low + 2}}}}}]:mul_(p[3]) "),
        (indexed(set_column), f"y[{{{{}}, {column + 1}}}] = y[{{{{}}, {column + 1}}}]:clone():sin() + p[2]:sum() "),
        (indexed(add_turned), f"y:t()[{column + 1}]:add_(y[{{{{}}, 1}}] * 2) "),
        (indexed(set_masked), "y[C[3]] = 0.5 "),
        (indexed(put), "y:index_put_(p[3], C[1], {accumulate=true}) "),
        (lambda p, y: y.tanh_(), "y:tanh_() "),
        (lambda p, y: y.add_(y.clone().sin() * p[1]), "y:add_(y:clone():sin() * p[2]) "),
        (lambda p, y: y.index_add(0, index, p[2] * 2), "y = y:index_add(C[1], p[3] * 2, 1) "),
        (lambda p, y: y.index_add_(0, index, y[index].cos()), "y:index_add_(C[1], y[C[1]]:cos(), 1) "),
        (lambda p, y: y[order], "y = y[C[2]] "),
        (lambda p, y: y.gather(0, where) * y, "y = y:gather(C[4], 1) * y "),
        (lambda p, y: y.scatter_add(0, where, y.sin()), "y = y:scatter_add(C[4], y:sin(), 1) "),
        (lambda p, y: torch.where(mask, y, y * p[1]), "y = nyx.where(C[3], y, y * p[2]) "),
        (lambda p, y: y.masked_fill(mask, 0.25), "y = y:masked_fill(C[3], 0.25) "),
        (lambda p, y: y.cumsum(0).flip(1), "y = y:cumsum(1):flip(2) "),
        (lambda p, y: torch.cat([y[k:], y[:k].tanh()]) if k else y.clone(), f"y = nyx.cat({{y[{{{{{k + 1}, -1}}}}], y[{{{{1, {k}}}}}]:tanh()}}, 1) "
         if k else "y = y:clone() "),
        (lambda p, y: y.tril(), "y = y:tril() "),
        (lambda p, y: y.flip(0).contiguous().view(-1).view(n, m), f"y = y:flip(1):view{{{n * m}}}:view{{{n}, {m}}} "),
        (lambda p, y: y.sort(0)[0], "y = (y:sort(1)) "),
        (lambda p, y: y * y.amax(1, keepdim=True), "y = y * y:amax(2, {keepdim=true}) "),
        (lambda p, y: y.roll(1, 0) - y.unsqueeze(1).sum(1), "y = y:roll(1, 1) - y:unsqueeze(2):sum(2) "),
    ]
    chosen = [r.choice(steps) for _ in range(r.randint(2, 5))]

    def f(p, x):
        y = x * p[0] + p[1] + p[2].sum()
        for step, _ in chosen:
            y = step(p, y)
        return y

    return Model(params, fresh(r, n, m), f, "local y = x * p[1] + p[2] + p[3]:sum() " + "".join(t for _, t in chosen) + "return y", constants)


MODELS = {"perceptron": perceptron, "conv net": conv_net, "attention block": attention, "in place": program}

# -------------------------------------------------------------------------- transforms

# Lua and Python, over: f, loss; p, x; X (a batch of x), XX (a batch of batches), P (a batch of
# parameters); v, vp (shaped as x, p), u, U (as the result, and a batch of it). D and E are random
# dimensions, XD is X with its batch at D.
TRANSFORMS = {
    "grad": [
        ("func.grad(loss, {argnums={1, 2}})(p, x)", lambda m: grad(m.loss, (0, 1))(m.p, m.x)),
        ("func.value_and_grad(loss)(p, x)", lambda m: grad_and_value(m.loss)(m.p, m.x)[::-1]),
    ],
    "vjp": [("(function() local y, pull = func.vjp(f, p, x) return {y, {pull(u)}} end)()",
             lambda m: (lambda y, pull: (y, pull(m.u)))(*vjp(m.f, m.p, m.x)))],
    "jvp": [("func.jvp(f, {p, x}, {vp, v})", lambda m: jvp(m.f, (m.p, m.x), (m.vp, m.v))),
            ("func.jvp(f, {p, x}, {false, v})", lambda m: jvp(lambda x: m.f(m.p, x), (m.x,), (m.v,)))],
    "jacobian": [
        ("func.jacobian(f, {argnums=2})(p, x)", lambda m: jacrev(m.f, 1)(m.p, m.x)),
        ("func.jacobian(f, {argnums=2, chunk_size=2})(p, x)", lambda m: jacfwd(m.f, 1)(m.p, m.x)),
    ],
    "jacobian by reverse mode": [
        ("func.jacrev(f, {argnums=2})(p, x)", lambda m: jacfwd(m.f, 1)(m.p, m.x)),
        ("func.jacrev(f)(p, x)", lambda m: jacrev(m.f)(m.p, m.x)),
    ],
    "jacobian by forward mode": [
        ("func.jacfwd(f, {argnums=2})(p, x)", lambda m: jacrev(m.f, 1)(m.p, m.x)),
        ("func.jacfwd(f, {argnums={1, 2}})(p, x)", lambda m: jacrev(m.f, (0, 1))(m.p, m.x)),
    ],
    "hessian": [
        ("func.hessian(loss, {argnums=2})(p, x)", lambda m: hessian(m.loss, 1)(m.p, m.x)),
        ("func.hessian(f, {argnums=2})(p, x)", lambda m: jacrev(jacrev(m.f, 1), 1)(m.p, m.x)),
        ("func.hessian(function(w) return loss({w, unpack(p, 2)}, x) end)(p[1])",
         lambda m: jacrev(jacrev(lambda w: m.loss([w, *m.p[1:]], m.x)))(m.p[0])),
    ],
    "hessian of lists": [
        ("func.hessian(loss)(p, x)", lambda m: hessian(m.loss)(m.p, m.x)),
        ("func.hessian(loss, {argnums={1, 2}})(p, x)", lambda m: hessian(m.loss, (0, 1))(m.p, m.x)),
    ],
    "hvp": [
        ("func.hvp(function(x) return loss(p, x) end, x, v)",
         lambda m: (m.loss(m.p, m.x), jvp(lambda x: grad(m.loss, 1)(m.p, x), (m.x,), (m.v,))[1])),
        ("func.hvp(loss, {p, x}, {vp, v})",
         lambda m: (m.loss(m.p, m.x), jvp(grad(m.loss, (0, 1)), (m.p, m.x), (m.vp, m.v))[1])),
    ],
    "grad of grad": [
        ("func.grad(function(p, x) return (func.grad(loss, {argnums=2})(p, x) * v):sum() end, {argnums={1, 2}})(p, x)",
         lambda m: grad(lambda p, x: (grad(m.loss, 1)(p, x) * m.v).sum(), (0, 1))(m.p, m.x)),
    ],
    "third derivatives": [
        ("func.grad(function(x) return (func.hvp(function(x) return loss(p, x) end, x, v) + "
         "(select(2, func.hvp(function(x) return loss(p, x) end, x, v)) * v):sum()) end)(x)",
         lambda m: grad(lambda x: m.loss(m.p, x) + (grad(lambda x: (grad(m.loss, 1)(m.p, x) * m.v).sum())(x)
                                                    * m.v).sum())(m.x)),
    ],
    "vmap": [
        ("func.vmap(f, {in_dims={false, D}, out_dims=E})(p, XD)",
         lambda m: vmap(m.f, (None, m.D), m.E)(m.p, m.XD)),
        ("func.vmap(f, {in_dims={1, D}, out_dims=E})(P, XD)", lambda m: vmap(m.f, (0, m.D), m.E)(m.P, m.XD)),
        ("func.vmap(f, {in_dims={1, false}})(P, x)", lambda m: vmap(m.f, (0, None))(m.P, m.x)),
        ("func.vmap(f, {in_dims={false, 1}, chunk_size=2})(p, X)", lambda m: vmap(m.f, (None, 0))(m.p, m.X)),
    ],
    "vmap of vmap": [
        ("func.vmap(func.vmap(f, {in_dims={false, 1}}), {in_dims={false, 1}, out_dims=E})(p, XX)",
         lambda m: vmap(vmap(m.f, (None, 0)), (None, 0), m.E)(m.p, m.XX)),
        ("func.vmap(func.vmap(f, {in_dims={false, D}}), {in_dims={1, false}})(P, XD)",
         lambda m: vmap(vmap(m.f, (None, m.D)), (0, None))(m.P, m.XD)),
        ("func.vmap(func.vmap(f, {in_dims={1, false}}), {in_dims={false, D}})(P, XD)",
         lambda m: vmap(vmap(m.f, (0, None)), (None, m.D))(m.P, m.XD)),
    ],
    "per-sample gradients": [
        ("func.vmap(func.grad(loss), {in_dims={false, D}})(p, XD)",
         lambda m: vmap(grad(m.loss), (None, m.D))(m.p, m.XD)),
        ("func.vmap(func.grad(loss, {argnums={1, 2}}), {in_dims={1, 1}})(P, X)",
         lambda m: vmap(grad(m.loss, (0, 1)))(m.P, m.X)),
    ],
    "grad of vmap": [
        ("func.grad(function(p, X) return (func.vmap(f, {in_dims={false, 1}})(p, X) * U):sum() end, {argnums={1, 2}})(p, X)",
         lambda m: grad(lambda p, X: (vmap(m.f, (None, 0))(p, X) * m.U).sum(), (0, 1))(m.p, m.X)),
    ],
    "grad of per-sample gradients": [
        ("func.grad(function(p, X) local g = func.vmap(func.grad(loss, {argnums=2}), {in_dims={false, 1}})(p, X) "
         "return (g * g):sum() end, {argnums={1, 2}})(p, X)",
         lambda m: grad(lambda p, X: (vmap(grad(m.loss, 1), (None, 0))(p, X)**2).sum(), (0, 1))(m.p, m.X)),
    ],
    "vmap of jacobian": [
        ("func.vmap(func.jacrev(f, {argnums=2}), {in_dims={false, D}})(p, XD)",
         lambda m: vmap(jacrev(m.f, 1), (None, m.D))(m.p, m.XD)),
        ("func.vmap(func.jacfwd(f, {argnums=2}), {in_dims={false, D}})(p, XD)",
         lambda m: vmap(jacrev(m.f, 1), (None, m.D))(m.p, m.XD)),
        ("func.vmap(func.jacobian(f, {argnums=2}), {in_dims={1, 1}})(P, X)",
         lambda m: vmap(jacrev(m.f, 1))(m.P, m.X)),
    ],
    "jacobian of vmap": [
        ("func.jacrev(func.vmap(f, {in_dims={false, 1}}), {argnums=2})(p, X)",
         lambda m: jacrev(vmap(m.f, (None, 0)), 1)(m.p, m.X)),
        ("func.jacfwd(func.vmap(f, {in_dims={false, 1}}), {argnums=2})(p, X)",
         lambda m: jacrev(vmap(m.f, (None, 0)), 1)(m.p, m.X)),
    ],
    "vmap of hessian": [
        ("func.vmap(func.hessian(loss, {argnums=2}), {in_dims={false, D}})(p, XD)",
         lambda m: vmap(hessian(m.loss, 1), (None, m.D))(m.p, m.XD)),
    ],
    "vmap of hvp, jvp and vjp": [
        ("func.vmap(function(x) return select(2, func.hvp(function(x) return loss(p, x) end, x, v)) end)(X)",
         lambda m: vmap(lambda x: jvp(lambda x: grad(m.loss, 1)(m.p, x), (x,), (m.v,))[1])(m.X)),
        ("func.vmap(function(v) return select(2, func.jvp(f, {p, x}, {false, v})) end)(X)",
         lambda m: vmap(lambda v: jvp(lambda x: m.f(m.p, x), (m.x,), (v,))[1])(m.X)),
        ("func.vmap(function(u) local _, pull = func.vjp(f, p, x) return pull(u) end)(U)",
         lambda m: vmap(lambda u: vjp(m.f, m.p, m.x)[1](u))(m.U)),
    ],
    "jvp of vmap and of jvp": [
        ("func.jvp(function(X) return func.vmap(f, {in_dims={false, 1}})(p, X) end, X, X * 2)",
         lambda m: jvp(lambda X: vmap(m.f, (None, 0))(m.p, X), (m.X,), (m.X * 2,))),
        ("func.jvp(function(x) return select(2, func.jvp(function(x) return f(p, x) end, x, v)) end, x, v * 2)",
         lambda m: jvp(lambda x: jvp(lambda x: m.f(m.p, x), (x,), (m.v,))[1], (m.x,), (m.v * 2,))),
    ],
    "jacobian of jacobian": [
        ("func.jacrev(func.jacrev(f, {argnums=2}), {argnums=2})(p, x)", lambda m: jacrev(jacrev(m.f, 1), 1)(m.p, m.x)),
        ("func.jacfwd(func.jacfwd(f, {argnums=2}), {argnums=2})(p, x)", lambda m: jacrev(jacrev(m.f, 1), 1)(m.p, m.x)),
        ("func.jacrev(func.jacfwd(f, {argnums=2}), {argnums=2})(p, x)", lambda m: jacrev(jacrev(m.f, 1), 1)(m.p, m.x)),
    ],
}

PRELUDE = """
local func, unpack = nyx.func, table.unpack or unpack
local function flat(t, list)
  list = list or {}
  if nyx.is_tensor(t) then list[#list + 1] = t
  elseif type(t) == "table" then for i = 1, #t do flat(t[i], list) end
  else error("a result is " .. type(t)) end
  return list, #list
end
local at = 0
local function take(n) local list = {} for i = 1, n do list[i] = T[at + i] end at = at + n return list end
"""


def compare_case(worker, model, lua, python, r, mutate=lambda text: text):
    """The worst error of one transform of one model; None where torch refuses. `mutate` changes the Lua, for
    testing this suite."""
    m = model
    y = m.f(m.p, m.x)
    m.c, m.v, m.vp = fresh(r, *y.shape), fresh(r, *m.x.shape), [fresh(r, *p.shape) for p in m.p]
    m.X, m.XX = fresh(r, ENTRIES, *m.x.shape), fresh(r, 2, ENTRIES, *m.x.shape)
    m.P = [fresh(r, ENTRIES, *p.shape) for p in m.p]
    m.u, m.U = fresh(r, *y.shape), fresh(r, ENTRIES, *y.shape)
    m.D, m.E = r.randint(-m.x.ndim - 1, m.x.ndim), r.choice([0, 0, -1, 1 if y.ndim else 0])
    m.XD = m.X.movedim(0, m.D)
    lists = {"p": m.p, "vp": m.vp, "P": m.P, "C": m.constants}
    single = {"x": m.x, "v": m.v, "X": m.X, "XX": m.XX, "XD": m.XD, "u": m.u, "U": m.U, "c": m.c}
    sent, text = [], PRELUDE
    for name, tensors in lists.items():
        sent += tensors
        text += f"local {name} = take({len(tensors)})\n"
    for name, tensor in single.items():
        sent.append(tensor)
        text += f"local {name} = take(1)[1]\n"
    for name, dim in (("D", m.D), ("E", m.E)):
        text += f"local {name} = {dim + 1 if dim >= 0 else dim}\n"
    text += (f"local function f(p, x) {m.lua} end\n"
             "local function loss(p, x) local y = f(p, x) return (y * y):mean() + (y * c):sum() end\n"
             f"return flat({{{lua}}})")
    try:
        grad(m.loss)(m.p, m.x)  # changes in place that reverse mode refuses, whatever python(m) uses
        expected = tree_flatten(python(m))[0]
    except (RuntimeError, NotImplementedError):
        return None
    answer = worker.run(mutate(text), sent)
    return worst_of(answer, expected)


def worst_of(answer, expected):
    if len(answer) != len(expected):
        raise Mismatch(f"{len(answer)} results, expected {len(expected)}")
    worst = 0.0
    for i, (got, want) in enumerate(zip(answer, expected)):
        error = error_of(got, want.detach(), torch.float64, f"result {i + 1}")
        worst = max(worst, error)
        if not error <= BOUND:
            raise Mismatch(f"result {i + 1}: error {error:.2e} above {BOUND:.0e}; got {got.reshape(-1)[:4].tolist()}, "
                           f"expected {want.reshape(-1)[:4].tolist()}")
    return worst


# ----------------------------------------------------------------------------- modules


def random_module(r):
    """A sequence of layers, the same one in Lua, and the shape of an entry."""
    def act():
        return r.choice([(tnn.Tanh(), "nn.Tanh()"), (tnn.GELU(), "nn.GELU()"), (tnn.SiLU(), "nn.SiLU()"),
                         (tnn.Sigmoid(), "nn.Sigmoid()"), (tnn.ReLU(), "nn.ReLU()")])

    if r.chance(0.5):
        widths = [r.randint(2, 5) for _ in range(r.randint(2, 4))]
        parts = []
        for a, b in zip(widths, widths[1:]):
            parts += [(tnn.Linear(a, b), f"nn.Linear({a},{b})"), act()]
            if r.chance(0.5):
                parts.append((tnn.LayerNorm(b, eps=0.1), f"nn.LayerNorm({b},{{eps=0.1}})"))
        shape = [widths[0]]
    else:
        a, b, k, s = r.randint(1, 2), r.randint(1, 3), r.randint(1, 3), r.randint(1, 2)
        parts = [(tnn.Conv2d(a, b, k, padding=1, stride=s), f"nn.Conv2d({a},{b},{k},{{padding=1,stride={s}}})")]
        if r.chance(0.5):
            parts.append((tnn.BatchNorm2d(b), f"nn.BatchNorm2d({b})"))
        parts.append(act())
        parts.append(r.choice([(tnn.MaxPool2d(2), "nn.MaxPool2d(2)"), (tnn.AvgPool2d(2), "nn.AvgPool2d(2)")]))
        parts.append((tnn.Flatten(), "nn.Flatten()"))
        shape = [a, 5, 5]
        count = tnn.Sequential(*[p for p, _ in parts]).eval()(torch.zeros(1, *shape)).numel()
        parts.append((tnn.Linear(count, 2), f"nn.Linear({count},2)"))
    return tnn.Sequential(*[p for p, _ in parts]).double().eval(), f"nn.Sequential({','.join(t for _, t in parts)})", shape


MODULE_TRANSFORMS = [
    ("func.vmap(func.grad(loss), {in_dims={false, 1, 1}})", lambda loss: vmap(grad(loss), (None, 0, 0))),
    ("func.vmap(func.jacrev(call), {in_dims={false, 1, 1}})", lambda loss: vmap(jacrev(loss.call), (None, 0, 0))),
    ("func.vmap(func.jacrev(call, {argnums=2}), {in_dims={false, 1, 1}})",
     lambda loss: vmap(jacfwd(loss.call, 1), (None, 0, 0))),
]


def compare_module(worker, r):
    module, lua, shape = random_module(r)
    state = {}
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            state[name] = fresh(r, *value.shape) if "running_var" not in name else fresh(r, *value.shape).abs() + 0.5
    module.load_state_dict(state, strict=False)
    params = {name: state[name] for name, _ in module.named_parameters()}
    X = fresh(r, ENTRIES, *shape)
    Y = fresh(r, *module(X).shape)

    def call(p, x, y):
        return functional_call(module, p, (x.unsqueeze(0),)).squeeze(0)

    def loss(p, x, y):
        return ((call(p, x, y) - y)**2).sum()

    loss.call = call
    text, python = r.choice(MODULE_TRANSFORMS)
    names, sent = list(state), [*state.values(), X, Y]
    n = len(names)
    ours = lua_names(names)
    table = ",".join(f"[\"{ours[name]}\"]=T[{i + 1}]" for i, name in enumerate(names))
    chosen = ",".join(f"[\"{ours[name]}\"]=T[{names.index(name) + 1}]" for name in params)
    list_of = ",".join(f"g[\"{ours[name]}\"]" for name in params)
    source = PRELUDE + (
        f"local m = {lua} m:to 'float64' m:load_state_dict({{{table}}}, {{strict=false}}) m:eval()\n"
        "local function call(p, x, y) return func.functional_call(m, p, x:unsqueeze(1)):squeeze(1) end\n"
        "local function loss(p, x, y) return (call(p, x, y) - y):square():sum() end\n"
        f"local g = {text}({{{chosen}}}, T[{n + 1}], T[{n + 2}])\n"
        f"if nyx.is_tensor(g) then return flat({{g}}) end return flat({{{list_of}}})")
    expected = tree_flatten(python(loss)(params, X, Y))[0]
    return worst_of(worker.run(source, sent), expected), lua


def lua_names(names):
    """The names of parameters of a Sequential, whose parts count from 1."""
    def text(name):
        first, rest = name.split(".", 1)
        return f"{int(first) + 1}.{rest}"
    return {name: text(name) for name in names}


# ------------------------------------------------------------------------------- suite


def check_self(tap, worker, seed):
    """A mistake planted in the function must be found by every transform."""
    failures = []
    for name, pairs in TRANSFORMS.items():
        r = Random(seed, "func", "self", name)
        model = attention(r)
        lua, python = pairs[0]

        def mutate(text):
            text = text.replace("(y * y):mean()", "(y * y):mean() * (1 + 1e-6)")
            return text.replace("return flat({", "local right = f f = function(p, x) return right(p, x) * (1 + 1e-6) "
                                                 "end\nreturn flat({")

        try:
            compare_case(worker, model, lua, python, r, mutate)
            failures.append(f"{name}: a wrong function was not found: {lua}")
        except Mismatch:
            pass
    tap.result("self: planted mistakes in functions are found by every transform", failures)


def compare(tap, worker, seed, count):
    warnings.filterwarnings("ignore", message="There is a performance drop")
    for model_name, make in MODELS.items():
        for name, pairs in TRANSFORMS.items():
            failures, worst, refused, cases = [], 0.0, 0, 0
            for i in range(count):
                r = Random(seed, "func", model_name, name, i)
                model = make(r)
                lua, python = pairs[i % len(pairs)]
                cases += 1
                try:
                    error = compare_case(worker, model, lua, python, r)
                    refused += error is None
                    worst = max(worst, error or 0.0)
                except (Mismatch, NyxError) as e:
                    failures.append(f"{i}: {e}\n  {lua}\n  f = function(p, x) {model.lua} end\n  "
                                    f"p: {[list(p.shape) for p in model.p]}, x: {list(model.x.shape)}")
            text = f", {refused} refused by torch" if refused else ""
            tap.result(f"func, {name}, {model_name}: {cases} cases, float64 {worst:.1e}{text}", failures)
    failures, worst = [], 0.0
    for i in range(3 * count):
        try:
            error, _ = compare_module(worker, Random(seed, "func", "module", i))
            worst = max(worst, error)
        except (Mismatch, NyxError) as e:
            failures.append(f"{i}: {e}")
    tap.result(f"func, per-sample gradients and Jacobians of modules: {3 * count} cases, float64 {worst:.1e}", failures)
