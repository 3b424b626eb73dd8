"""Layers and losses of nyx.nn against torch.nn, with the same weights: results, gradients of
first and second order with respect to the input and every parameter, and what the layer
remembers. Read next: ops.py."""
import warnings

import torch
import torch.nn as tnn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from cases import Random
from ops import Mismatch, error_of
from worker import NyxError

BOUND = 1e-9


def options(**attrs):
    """A table of Lua, from 0-based positions already converted."""
    def text(v):
        if isinstance(v, bool):
            return "true" if v else "false"
        if isinstance(v, str):
            return v if v.startswith("T[") else f'"{v}"'
        if isinstance(v, (list, tuple)):
            return "{" + ",".join(map(text, v)) + "}"
        return repr(v)

    pairs = [f"{k}={text(v)}" for k, v in attrs.items() if v is not None]
    return "{" + ",".join(pairs) + "}"


def gradients(f, leaves, order=2):
    """Results of f and gradients of first and second order, weighted as in worker.lua."""
    r = Random("layers")
    y = f()
    v = r.tensor(y.shape, y.dtype, 0.2, 1.5, plain=True).requires_grad_()
    first = torch.autograd.grad((y * v).sum(), leaves, create_graph=True, allow_unused=True)
    w = [r.tensor(x.shape, x.dtype, 0.2, 1.5, plain=True) for x in leaves]
    total = sum((g * k).sum() for g, k in zip(first, w) if g is not None and g.requires_grad)
    second = [None] * (len(leaves) + 1)
    if order > 1 and torch.is_tensor(total) and total.requires_grad:
        second = torch.autograd.grad(total, leaves + [v], allow_unused=True)
    return y, v, w, list(first), list(second)


def compare_call(worker, make, f, leaves, sent, names, order=2, after=()):
    """`make`: Lua that sets `m` from T; f: the peer's call; `names`: the leaves in Lua, the
    first being x; `after`: pairs of Lua and the peer's value, compared afterwards."""
    y, v, w, first, second = gradients(f, leaves, order)
    tensors = [*sent, v.detach(), *w]
    n = len(sent)
    ws = ",".join(f"T[{n + 2 + i}]" for i in range(len(w)))
    lua = (f"{make} local all, n = differentiate(function() return call(m) end, {{}}, 0, {{{','.join(names)}}}, "
           f"{{T[{n + 1}]}}, {{{ws}}}, {order}) ")
    for i, (text, _) in enumerate(after):
        lua += f"all[n + {i + 1}] = {text} "
    lua += f"return all, n + {len(after)}"
    answer = worker.run(lua, tensors)
    expected = [("the result", y), *((f"first gradient of {n}", g) for n, g in zip(names, first))]
    if order > 1:
        expected += [(f"second gradient of {n}", g) for n, g in zip([*names, "the incoming gradient"], second)]
    shapes = [y.shape, *(x.shape for x in leaves), *(x.shape for x in leaves), v.shape]
    expected += [(text, value() if callable(value) else value) for text, value in after]
    worst = 0.0
    for i, (what, want) in enumerate(expected):
        got = answer[i]
        shape = shapes[i] if i < len(shapes) and want is None else None
        if got is None:
            got = torch.zeros(want.shape if want is not None else shape)
        if want is None:
            want = torch.zeros(shape)
        error = error_of(got, want.detach(), torch.float64, what)
        worst = max(worst, error)
        if not error <= BOUND:
            raise Mismatch(f"{what}: error {error:.2e} above {BOUND:.0e}; got {got.reshape(-1)[:4].tolist()}, "
                           f"expected {want.reshape(-1)[:4].tolist()}")
    return worst


def with_state(layer, lua, x, call="call = function(m) return m(T[1]) end", order=2, after=(), train=None, leaf_x=True):
    """The arguments of compare_call for a layer: its state goes to Nyx."""
    layer = layer.double()
    names, sent = [], [x]
    for name, value in layer.state_dict().items():
        if name == "num_batches_tracked":
            continue
        sent.append(value.detach().clone())
        names.append(f'["{name}"]=T[{len(sent)}]')
    make = f"m = {lua} m:load_state_dict({{{','.join(names)}}}, {{strict=false}}) "
    if train is not None:
        make += f"m:train({str(train).lower()}) "
    parameters = dict(layer.named_parameters())
    leaves = [x.requires_grad_()] if leaf_x else []
    leaves += list(parameters.values())
    leaf_names = (["T[1]"] if leaf_x else []) + [f"m.{n}" for n in parameters]
    return dict(make=make + call + " ", f=lambda: layer(x), leaves=leaves, sent=[t.detach() for t in sent],
                names=leaf_names, order=order, after=after)


def randomised(layer, r):
    """The layer with random numbers also where it begins with ones and zeros."""
    with torch.no_grad():
        for name, value in layer.state_dict().items():
            if value.is_floating_point():
                low = 0.5 if "var" in name else -1
                value.copy_(r.tensor(value.shape, torch.float64, low, 1.5, plain=True))
    return layer


def f64(**attrs):
    return options(**attrs, dtype="float64")


def linear(r):
    a, b, bias = r.randint(1, 7), r.randint(1, 7), r.chance(0.6)
    x = r.tensor([*r.shape(1, 3, empty=0), a])
    return with_state(tnn.Linear(a, b, bias), f"nn.Linear({a},{b},{f64(bias=bias)})", x)


def conv(r):
    groups = r.choice([1, 1, 2])
    a, b, k = groups * r.randint(1, 3), groups * r.randint(1, 3), [r.randint(1, 3), r.randint(1, 3)]
    attrs = dict(stride=r.randint(1, 2), padding=r.randint(0, 2), dilation=r.randint(1, 2), groups=groups, bias=r.chance(0.6))
    x = r.tensor([r.randint(1, 3), a, r.randint(5, 8), r.randint(5, 8)])
    return with_state(tnn.Conv2d(a, b, k, **attrs), f"nn.Conv2d({a},{b},{{{k[0]},{k[1]}}},{f64(**attrs)})", x)


def batch_norm(r, train):
    ndims = r.choice([1, 2])
    c = r.randint(1, 4)
    affine = r.chance(0.8)
    attrs = dict(eps=r.uniform(1e-4, 0.1), momentum=r.uniform(0.05, 0.9), affine=affine)
    layer = randomised((tnn.BatchNorm1d if ndims == 1 else tnn.BatchNorm2d)(c, **attrs).double(), r).train(train)
    x = r.tensor([r.randint(3, 5), c] + ([r.randint(2, 4), r.randint(2, 4)] if ndims == 2 else []), repeats=False).contiguous()
    after = [("m.running_mean", lambda: layer.running_mean), ("m.running_var", lambda: layer.running_var)]
    # torch's second gradient needs a weight
    return with_state(layer, f"nn.BatchNorm{ndims}d({c},{f64(**attrs)})", x, train=train, after=after,
                      order=2 if affine else 1)


def layer_norm(r):
    shape = [r.randint(1, 4) for _ in range(3)]
    shape[-1] += 2
    k = r.randint(1, 2)
    affine = r.chance(0.7)
    attrs = dict(eps=r.uniform(1e-5, 0.1), elementwise_affine=affine)
    layer = randomised(tnn.LayerNorm(shape[-k:], **attrs).double(), r)
    inner = ",".join(map(str, shape[-k:]))
    return with_state(layer, f"nn.LayerNorm({{{inner}}},{f64(**attrs)})", r.tensor(shape, repeats=False))


def group_norm(r):
    groups, size = r.randint(1, 3), r.randint(1, 3)
    attrs = dict(eps=r.uniform(1e-4, 0.1), affine=r.chance(0.7))
    layer = randomised(tnn.GroupNorm(groups, groups * size, **attrs).double(), r)
    x = r.tensor([r.randint(1, 3), groups * size, r.randint(3, 6), r.randint(1, 6)], repeats=False)
    return with_state(layer, f"nn.GroupNorm({groups},{groups * size},{f64(**attrs)})", x,
                      order=2 if attrs["affine"] else 1)  # torch's second gradient needs a weight


def embedding(r):
    n, d = r.randint(2, 7), r.randint(1, 4)
    padding = r.randrange(n) if r.chance(0.5) else None
    layer = tnn.Embedding(n, d, padding_idx=padding).double()
    index = r.positions(r.shape(1, 3, empty=0), n)
    parts = with_state(layer, f"nn.Embedding({n},{d},{f64(padding_idx=None if padding is None else padding + 1)})",
                       index, leaf_x=False)
    parts["sent"][0] = index + 1
    return parts


class Gated(tnn.Module):
    def __init__(self, dim, hidden, out, bias, activation):
        super().__init__()
        self.in_proj, self.out_proj = tnn.Linear(dim, 2 * hidden, bias), tnn.Linear(hidden, out, bias)
        self.activation = activation

    def forward(self, x):
        up, gate = self.in_proj(x).chunk(2, -1)
        return self.out_proj(self.activation(gate) * up)


def gated(name, activation):
    def make(r):
        dim, hidden, out = r.randint(1, 6), r.randint(1, 7), r.randint(1, 5)
        bias = r.chance(0.6)
        layer = Gated(dim, hidden, out, bias, activation)
        return with_state(layer, f"nn.{name}({dim},{hidden},{f64(bias=bias, out_features=out)})", r.tensor([*r.shape(1, 3, empty=0), dim]))
    return make


def multihead_attention(r):
    """Of a tensor with itself or of three, with masks of all kinds; true hides, as in torch."""
    heads, n, lq = r.randint(1, 3), r.randint(1, 3), r.randint(1, 5)
    size, lk = heads * r.randint(1, 3), r.randint(1, 5)
    own, first, bias = r.chance(0.5), r.chance(0.6), r.chance(0.7)
    kdim, vdim = (size, size) if own or r.chance(0.5) else (r.randint(1, 5), r.randint(1, 5))
    layer = tnn.MultiheadAttention(size, heads, bias=bias, kdim=kdim, vdim=vdim, batch_first=first)
    randomised(layer.double(), r)
    lua = f"nn.MultiheadAttention({size},{heads},{f64(bias=bias, kdim=kdim, vdim=vdim, batch_first=first)})"

    def side(length, features):
        return r.tensor([n, length, features] if first else [length, n, features], repeats=False)

    x = side(lq, size)
    parts = with_state(layer, lua, x)
    others = [] if own else [side(lk, kdim).requires_grad_(), side(lk, vdim).requires_grad_()]
    sent = parts["sent"]
    sent += [t.detach() for t in others]
    inputs = ["T[1]"] * 3 if own else ["T[1]", f"T[{len(sent) - 1}]", f"T[{len(sent)}]"]
    lk = lq if own else lk
    given, lua_given = {}, {}
    for name, shape in (("attn_mask", [lq, lk] if r.chance(0.5) else [n * heads, lq, lk]), ("key_padding_mask", [n, lk])):
        if r.chance(0.5):
            given[name] = r.mask(shape).clone() if r.chance(0.7) else r.tensor(shape, repeats=False, plain=True)
            if given[name].dtype == torch.bool:
                given[name][..., 0] = False
            sent.append(given[name])
            lua_given[name] = f"T[{len(sent)}]"
    weights = r.chance(0.3)
    causal = torch.ones(lq, lk, dtype=torch.bool).triu(1)
    if "attn_mask" not in given and r.chance(0.5):  # torch wants the mask itself
        lua_given["is_causal"], given["attn_mask"] = True, causal
    if weights:
        lua_given["need_weights"] = True
    pick = 1 if weights else 0
    call = f"({','.join([*inputs, options(**lua_given)])})"
    parts["make"] = parts["make"].replace("return m(T[1]) end", f"return (select({pick + 1}, m{call})) end")

    def run():
        with sdpa_kernel(SDPBackend.MATH):
            return layer(x, *(others or (x, x)), need_weights=weights, **given)[pick]

    parts["f"] = run
    parts["leaves"] += others
    parts["names"] += [] if own else inputs[1:]
    return parts


def recurrent(name):
    """Its result, or its last state or cell, with first states or without."""
    def make(r):
        inputs, hidden, n, length = (r.randint(1, 4) for _ in range(4))
        attrs = dict(num_layers=r.randint(1, 2), bidirectional=r.chance(0.4), bias=r.chance(0.7), batch_first=r.chance(0.4))
        if name == "RNN" and r.chance(0.5):
            attrs["nonlinearity"] = "relu"
        if name == "LSTM" and hidden > 1 and r.chance(0.4):
            attrs["proj_size"] = r.randint(1, hidden - 1)
        layer = randomised(getattr(tnn, name)(inputs, hidden, **attrs).double(), r)
        single = r.chance(0.2)
        shape = [length, inputs] if single else [n, length, inputs] if attrs["batch_first"] else [length, n, inputs]
        x = r.tensor(shape, repeats=False)
        parts = with_state(layer, f"nn.{name}({inputs},{hidden},{f64(**attrs)})", x)
        states = []
        if r.chance(0.5):
            count = attrs["num_layers"] * (1 + attrs["bidirectional"])
            sizes = [[count, size] if single else [count, n, size] for size in (attrs.get("proj_size") or hidden, hidden)]
            states = [r.tensor(size, repeats=False).requires_grad_() for size in sizes[:2 if name == "LSTM" else 1]]
        first = len(parts["sent"]) + 1
        names = [f"T[{first + i}]" for i in range(len(states))]
        parts["sent"] += [t.detach() for t in states]
        parts["leaves"] += states
        parts["names"] += names
        pick = r.randrange(3 if name == "LSTM" else 2)
        call = ",".join(["T[1]", *names])
        parts["make"] = parts["make"].replace("return m(T[1]) end", f"return (select({pick + 1}, m({call}))) end")

        def run():
            y, last = layer(x, tuple(states) if name == "LSTM" else states[0]) if states else layer(x)
            return (y, *last)[pick] if name == "LSTM" else (y, last)[pick]

        parts["f"] = run
        return parts

    return make


def packed(r):
    """A recurrent layer over sequences of different lengths: the padded result and the lengths,
    or the last states or cells."""
    name = r.choice(["LSTM", "GRU", "RNN"])
    inputs, hidden, n, length = r.randint(1, 4), r.randint(1, 4), r.randint(1, 5), r.randint(1, 6)
    first = r.chance(0.5)
    attrs = dict(num_layers=r.randint(1, 2), bidirectional=r.chance(0.6), batch_first=first)
    if name == "LSTM" and hidden > 1 and r.chance(0.3):
        attrs["proj_size"] = r.randint(1, hidden - 1)
    layer = randomised(getattr(tnn, name)(inputs, hidden, **attrs).double(), r)
    x = r.tensor([n, length, inputs] if first else [length, n, inputs], repeats=False)
    lengths = [r.randint(1, length) for _ in range(n)]
    ordered = r.chance(0.4)
    if ordered:
        lengths.sort(reverse=True)
    total, value = length + r.randint(0, 2), r.choice([0.0, -1.5])
    parts = with_state(layer, f"nn.{name}({inputs},{hidden},{f64(**attrs)})", x)
    states = []
    if r.chance(0.5):
        count = attrs["num_layers"] * (1 + attrs["bidirectional"])
        sizes = [[count, n, attrs.get("proj_size") or hidden], [count, n, hidden]]
        states = [r.tensor(size, repeats=False).requires_grad_() for size in sizes[:2 if name == "LSTM" else 1]]
    names = [f"T[{len(parts['sent']) + 1 + i}]" for i in range(len(states))]
    parts["sent"] += [t.detach() for t in states]
    parts["leaves"] += states
    parts["names"] += names
    pick = r.randrange(3 if name == "LSTM" else 2)
    pad = options(batch_first=first, total_length=total, padding_value=value)
    pack = f"R.pack_padded_sequence(T[1], {{{','.join(map(str, lengths))}}}, {options(batch_first=first, enforce_sorted=ordered)})"
    parts["make"] = parts["make"].replace("return m(T[1]) end", (
        f"local R = nn.utils.rnn local y, h, c = m({','.join([pack, *names])}) "
        f"if {pick} == 0 then local p, n = R.pad_packed_sequence(y, {pad}) "
        f"return p + n:to(p.dtype):sum() end return ({{h, c}})[{pick}] end"))

    def run():
        sequences = tnn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=ordered)
        y, last = layer(sequences, tuple(states) if name == "LSTM" else states[0]) if states else layer(sequences)
        if pick == 0:
            p, sizes = tnn.utils.rnn.pad_packed_sequence(y, batch_first=first, total_length=total, padding_value=value)
            return p + sizes.sum()
        return last[pick - 1] if name == "LSTM" else last

    parts["f"] = run
    return parts


def recurrent_cell(r):
    name = r.choice(["LSTMCell", "GRUCell", "RNNCell"])
    inputs, hidden, n, bias = r.randint(1, 4), r.randint(1, 4), r.randint(1, 3), r.chance(0.7)
    layer = randomised(getattr(tnn, name)(inputs, hidden, bias=bias).double(), r)
    x = r.tensor([n, inputs], repeats=False)
    parts = with_state(layer, f"nn.{name}({inputs},{hidden},{f64(bias=bias)})", x)
    pick = r.randrange(2) if name == "LSTMCell" else 0
    parts["make"] = parts["make"].replace("return m(T[1]) end", f"return (select({pick + 1}, m(T[1]))) end")
    parts["f"] = lambda: layer(x)[pick] if name == "LSTMCell" else layer(x)
    return parts


def activation(r):
    layer, lua = r.choice([
        (tnn.ReLU(), "nn.ReLU()"), (tnn.GELU(), "nn.GELU()"), (tnn.SiLU(), "nn.SiLU()"), (tnn.Tanh(), "nn.Tanh()"),
        (tnn.Sigmoid(), "nn.Sigmoid()"), (tnn.Mish(), "nn.Mish()"), (tnn.Softplus(), "nn.Softplus()"),
        (tnn.LeakyReLU(0.2), "nn.LeakyReLU(0.2)"), (tnn.ReLU6(), "nn.ReLU6()"), (tnn.SELU(), "nn.SELU()"),
        (tnn.Softmax(-1), "nn.Softmax(-1)"), (tnn.LogSoftmax(1), "nn.LogSoftmax(2)"), (tnn.Flatten(), "nn.Flatten()")])
    return with_state(layer, lua, r.tensor([3, 4, 2], repeats=False))


def pools(r):
    k = r.randint(1, 3)
    layer, lua = r.choice([
        (tnn.MaxPool2d(k), f"nn.MaxPool2d({k})"), (tnn.AvgPool2d(k), f"nn.AvgPool2d({k})"),
        (tnn.MaxPool2d(k, stride=2, padding=k // 2), f"nn.MaxPool2d({k},{{stride=2,padding={k // 2}}})")])
    return with_state(layer, lua, r.distinct([2, 2, 6, 5]))


LAYERS = {
    "Linear": linear, "Conv2d": conv, "BatchNorm in training": lambda r: batch_norm(r, True),
    "BatchNorm in evaluation": lambda r: batch_norm(r, False), "LayerNorm": layer_norm, "GroupNorm": group_norm, "Embedding": embedding,
    "SwiGLU": gated("SwiGLU", F.silu), "GEGLU": gated("GEGLU", F.gelu),
    "MultiheadAttention": multihead_attention, "LSTM": recurrent("LSTM"), "GRU": recurrent("GRU"),
    "RNN": recurrent("RNN"), "packed sequences": packed, "recurrent cells": recurrent_cell, "activations": activation, "pooling": pools,
}

# ------------------------------------------------------------------------------ losses


def loss(name, lo=-2, hi=2, target=(-2, 2), **random_options):
    """Losses of an input and a target of one shape."""
    def make(r):
        reduction = r.choice(["mean", "sum", "none"])
        attrs = {k: f(r) for k, f in random_options.items()}
        shape = r.shape(1, 3, empty=0)
        x = r.tensor(shape, lo=lo, hi=hi, repeats=False)
        y = r.tensor(shape, lo=target[0], hi=target[1], repeats=False)
        peer = getattr(tnn, name)(reduction=reduction, **{k: v for k, v in attrs.items() if v is not None})
        lua = f"m = nn.{name}({options(reduction=reduction, **attrs)}) call = function(m) return m(T[1], T[2]) end "
        x.requires_grad_()
        return dict(make=lua, f=lambda: peer(x, y), leaves=[x], sent=[x.detach(), y], names=["T[1]"])

    return make


def labelled(name):
    def make(r):
        classes = r.randint(2, 5)
        shape = [r.randint(2, 5), classes] + [r.randint(1, 3) for _ in range(r.choice([0, 0, 2]))]
        x = r.tensor(shape, repeats=False)
        if name == "NLLLoss":
            x = x.log_softmax(1).detach()
        attrs = {"reduction": r.choice(["mean", "sum", "none"])}
        lua = dict(attrs)
        target = r.positions([shape[0], *shape[2:]], classes)
        sent = [x, target + 1]
        if name == "CrossEntropyLoss" and r.chance(0.5):
            attrs["label_smoothing"] = lua["label_smoothing"] = r.uniform(0, 0.9)
        if r.chance(0.5):
            attrs["weight"] = r.tensor([classes], lo=0.2, plain=True)
            sent.append(attrs["weight"])
            lua["weight"] = "T[3]"
        if r.chance(0.5):
            attrs["ignore_index"] = (target.reshape(-1)[0].item() + 1) % classes
            lua["ignore_index"] = attrs["ignore_index"] + 1
        peer = getattr(tnn, name)(**attrs)
        x.requires_grad_()
        return dict(make=f"m = nn.{name}({options(**lua)}) call = function(m) return m(T[1], T[2]) end ",
                    f=lambda: peer(x, target), leaves=[x], sent=[t.detach() for t in sent], names=["T[1]"])

    return make


def kl(r):
    reduction, log_target = r.choice(["mean", "sum", "none", "batchmean"]), r.chance(0.5)
    shape = [r.randint(1, 4), r.randint(2, 5)]
    x = r.tensor(shape, repeats=False).log_softmax(1).detach()
    y = r.tensor(shape, repeats=False).softmax(1).detach()
    y = y.log() if log_target else y
    warnings.filterwarnings("ignore", message="reduction: 'mean' divides")
    peer = tnn.KLDivLoss(reduction=reduction, log_target=log_target)
    x.requires_grad_()
    return dict(make=f"m = nn.KLDivLoss({options(reduction=reduction, log_target=log_target)}) "
                     "call = function(m) return m(T[1], T[2]) end ",
                f=lambda: peer(x, y), leaves=[x], sent=[x.detach(), y], names=["T[1]"])


def bce_logits(r):
    shape = [r.randint(1, 4), 3]
    x, y = r.tensor(shape, repeats=False), r.tensor(shape, lo=0, hi=1, repeats=False)
    attrs, lua, sent = {"reduction": r.choice(["mean", "sum", "none"])}, {}, [x, y]
    for name in ("weight", "pos_weight"):
        if r.chance(0.5):
            attrs[name] = r.tensor([3], lo=0.3, plain=True)
            sent.append(attrs[name])
            lua[name] = f"T[{len(sent)}]"
    peer = tnn.BCEWithLogitsLoss(**attrs)
    lua["reduction"] = attrs["reduction"]
    x.requires_grad_()
    return dict(make=f"m = nn.BCEWithLogitsLoss({options(**lua)}) call = function(m) return m(T[1], T[2]) end ",
                f=lambda: peer(x, y), leaves=[x], sent=[t.detach() for t in sent], names=["T[1]"])


LOSSES = {
    "MSELoss": loss("MSELoss"), "L1Loss": loss("L1Loss"),
    # exact in float32 too: torch rounds these in its gradients
    "HuberLoss": loss("HuberLoss", delta=lambda r: r.choice([0.5, 1.0, 1.25])),
    "SmoothL1Loss": loss("SmoothL1Loss", beta=lambda r: r.choice([0.5, 1.0, 1.25])),
    "BCELoss": loss("BCELoss", 0.05, 0.95, (0, 1)), "BCEWithLogitsLoss": bce_logits, "KLDivLoss": kl,
    "CrossEntropyLoss": labelled("CrossEntropyLoss"), "NLLLoss": labelled("NLLLoss"),
}


def compare(tap, worker, seed, count):
    for name, make in {**LAYERS, **LOSSES}.items():
        failures, worst = [], 0.0
        for i in range(count):
            parts = make(Random(seed, name, i))
            try:
                worst = max(worst, compare_call(worker, **parts))
            except (Mismatch, NyxError) as e:
                failures.append(f"{name} {i}: {e}\n  {parts['make']}")
        tap.result(f"nn, {name}: {count} cases, float64 {worst:.1e}", failures)
