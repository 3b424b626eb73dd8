"""Compares one op of Nyx with its peer on random calls: values, and for floats gradients of
first and second order and derivatives in forward mode. Read next: table.py, cases.py."""
import contextlib
import math

import torch
import torch.nn.functional as F

import table
from cases import FLOATS, Case, Random
from makers import MAKERS
from worker import DTYPES, NAMES, NyxError

# The largest error allowed, relative to max(|expected|, a part of the largest expected
# element, a little): by dtype, for values, first and second gradients. float32 and the half
# types are held against float64 computed from the same inputs.
BOUNDS = {
    torch.float64: (1e-9, 1e-9, 1e-9),
    torch.float32: (4e-6, 3e-5, 1e-4),  # gradients are sums over what was broadcast
    torch.float16: (4e-3, 3e-2, None),
    torch.bfloat16: (3e-2, 2e-1, None),
}
# What counts as the size of an element that cancelled out: this part of the largest.
PART = {torch.float64: (1e-4, 1e-3), torch.float32: (0.05, 0.1), torch.float16: (0.2, 0.1),
        torch.bfloat16: (0.2, 0.1)}


class Mismatch(Exception):
    pass


def error_of(got, expected, dtype, what):
    """The worst relative error of a float tensor; Mismatch where it is not a number."""
    if list(got.shape) != list(expected.shape):
        raise Mismatch(f"{what} has shape {list(got.shape)}, expected {list(expected.shape)}")
    got, expected = got.double().reshape(-1), expected.double().reshape(-1)
    if not got.numel():
        return 0.0
    same = (got == expected) | (got.isnan() & expected.isnan())
    if same.all():
        return 0.0
    usual = expected[expected.isfinite()].abs()
    part, least = PART[dtype]
    size = max(usual.max().item() * part if usual.numel() else 0, least)
    # An overflow to infinity where the expected value is beyond the dtype's range is right.
    error = ((got - expected).abs() / expected.abs().clamp(min=size)).masked_fill(same, 0)
    error = error.masked_fill(error.isnan(), math.inf)
    worst = error.max().item()
    if math.isinf(worst):
        at = error.argmax().item()
        raise Mismatch(f"{what}: element {at} is {got[at].item()!r}, expected {expected[at].item()!r}")
    return worst


def check_exact(got, expected, what):
    if list(got.shape) != list(expected.shape):
        raise Mismatch(f"{what} has shape {list(got.shape)}, expected {list(expected.shape)}")
    wrong = (got != expected).reshape(-1)
    if wrong.any():
        at = wrong.int().argmax().item()
        raise Mismatch(f"{what}: element {at} is {got.reshape(-1)[at].item()}, expected "
                       f"{expected.reshape(-1)[at].item()}")


def lua_value(value, kind, name=""):
    """A value of Python as Lua text; positions and dimensions from 0 become from 1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, torch.dtype):
        return f'"{NAMES[value]}"'
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        return "{" + ",".join(lua_value(v, kind, name) for v in value) + "}"
    if kind in ("dim", "dims", "index") or name == "ignore_index":
        return str(value + 1 if value >= 0 else value)
    if isinstance(value, float):
        if math.isinf(value):
            return "math.huge" if value > 0 else "-math.huge"
        return repr(value)
    return str(value)


def composites():
    """Functions written in Lua over ops, described as ops are."""
    for name, positional in table.COMPOSITES.items():
        yield Op({"name": name, "kind": "composite", "group": "linear algebra", "attrs": [], "inputs": [],
                  "dtypes": ["float64", "float32"], "variadic": False, "differentiable": True,
                  "positional": positional})


def outputs_of(result):
    return list(result) if isinstance(result, (tuple, list)) else [result]


class Op:
    """One op as it describes itself, with its peer."""
    positional = ()  # attributes that do not go into the options

    def __init__(self, description):
        self.__dict__.update(description)
        self.attr_types = {a["name"]: a["type"] for a in self.attrs}
        self.presets = {a["name"]: a.get("preset") for a in self.attrs}
        self.peer = table.PEERS.get(self.name) or getattr(torch, self.name, None) or getattr(F, self.name, None)
        if self.group in table.NO_PEER_GROUPS and self.name not in table.PEERS:
            self.peer = None
        self.maker = MAKERS.get(self.name)

    def reason(self):
        """Why the op is not compared, or None."""
        if self.name in table.NO_PEER:
            return table.NO_PEER[self.name]
        if self.peer is None and self.group in table.NO_PEER_GROUPS:
            return table.NO_PEER_GROUPS[self.group]
        return None

    def elementwise(self, r, dtype):
        lo, hi = self.domain
        if dtype not in FLOATS:
            lo, hi = table.INT_DOMAIN.get(self.name, (-100, 100) if self.name in table.WRAPS else (lo, hi))
        shapes = r.broadcast(len(self.inputs))
        attrs = {}
        for attr in self.attrs:
            if r.chance(0.6):
                bounds = table.ATTRS.get(self.name, {}).get(attr["name"])
                preset = attr["preset"]
                if bounds:
                    attrs[attr["name"]] = r.uniform(*bounds)
                elif isinstance(preset, (int, float)):
                    attrs[attr["name"]] = preset * r.uniform(0.5, 1.5) if preset else r.uniform(-1, 1)
                if dtype not in FLOATS and attr["name"] in attrs:
                    if dtype == torch.uint8:  # a bound below 0 wraps around in torch
                        attrs[attr["name"]] = abs(attrs[attr["name"]])
                    attrs[attr["name"]] = round(attrs[attr["name"]])
        return Case([r.tensor(s, dtype, lo, hi) for s in shapes], attrs)

    def make(self, r, dtype):
        if self.maker:
            return self.maker(r, dtype)
        if self.kind == "elementwise":
            return self.elementwise(r, dtype)
        raise Mismatch("has no maker of random calls: add one to MAKERS in spec/peers/makers.py")

    def call_text(self, case, names):
        """The call in Lua, inputs by these names."""
        options, args = "", [f"{{{','.join(names)}}}"] if self.variadic else list(names)
        args += [str(v) for n, v in case.attrs.items() if n in self.positional]
        named = {n: v for n, v in case.attrs.items() if n not in self.positional}
        if named:
            pairs = (f"{n}={lua_value(v, self.attr_types.get(n), n)}" for n, v in named.items())
            options = "{" + ",".join(pairs) + "}"
        return f"nyx.{self.name}({','.join(args + [options] * bool(options))})"


def peer_run(op, case, inputs, order, v=None, w=None):
    """Results, first and second gradients of the peer; None for a gradient that is zero."""
    leaves = [inputs[i] for i in case.leaves]
    for x in leaves:
        x.requires_grad_(order > 0)
    with contextlib.nullcontext() if order else torch.no_grad():
        results = outputs_of((case.peer or op.peer)(*inputs, **case.attrs))
    if order == 0:
        return results, [], []

    def weighted(ys, weights):
        total = None
        for i, y in enumerate(ys):
            if y is not None and i in weights and y.requires_grad:
                part = (y * weights[i]).sum()
                total = part if total is None else total + part
        return total

    if order > 1:
        for x in v.values():
            x.requires_grad_(True)
    total = weighted(results, v)
    none = [None] * len(leaves)
    if total is None:
        return results, none, none + [None] * len(v)
    first = torch.autograd.grad(total, leaves, create_graph=order > 1, allow_unused=True)
    if order == 1:
        return results, first, []
    total = weighted(first, w)
    others = leaves + [v[i] for i in sorted(v)]
    if total is None:
        return results, first, [None] * len(others)
    return results, first, torch.autograd.grad(total, others, allow_unused=True)


def peer_forward(run, leaves, tangents, native=True):
    """The derivatives of the float results along tangents: by forward mode where torch has it, else by
    reverse mode twice, J t being the derivative of <J^T u, t> by u. None for one that is zero."""

    def results(*xs):
        return tuple(y for y in outputs_of(run(*xs)) if y.dtype in FLOATS)

    try:
        if native:
            return torch.func.jvp(results, leaves, tangents)[1]
    except (RuntimeError, NotImplementedError):
        pass
    leaves = tuple(x.requires_grad_() for x in leaves)
    ys = results(*leaves)
    us = [torch.zeros_like(y, requires_grad=True) for y in ys]
    total = sum((y * u).sum() for y, u in zip(ys, us) if y.requires_grad)
    if not torch.is_tensor(total):
        return [None] * len(ys)
    grads = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
    total = sum((g * t).sum() for g, t in zip(grads, tangents) if g is not None and g.requires_grad)
    if not torch.is_tensor(total):
        return [None] * len(ys)
    return torch.autograd.grad(total, us, allow_unused=True)


FORWARD = -1  # in place of the order, in reports


class Report:
    """What was seen of one op: numbers of cases, worst errors, failures."""

    def __init__(self):
        self.cases, self.refused, self.gradients, self.failures = 0, 0, 0, []
        self.worst = {}

    def note(self, dtype, order, error):
        key = (NAMES[dtype], order)
        self.worst[key] = max(self.worst.get(key, 0.0), error)

    def text(self):
        parts = [f"{self.cases} cases"]
        for (dtype, order), error in sorted(self.worst.items()):
            if dtype in ("float64", "float32"):
                parts.append(f"{dtype}{'>' if order == FORWARD else chr(39) * order} {error:.1e}")
        if self.refused:
            parts.append(f"{self.refused} refused by torch")
        return ", ".join(parts)


def describe(x):
    if x is None:
        return "nil"
    return f"{NAMES[x.dtype]}{list(x.shape)} strides {list(x.stride())}"


def run_case(worker, op, case, dtype, report, mutate=None):
    """Compares one call. `mutate` changes the Lua of the call, for testing this suite."""
    inputs = case.inputs
    if case.leaves is None:
        case.leaves = [i for i, x in enumerate(inputs) if x is not None and x.dtype in FLOATS]
    order = min(case.order, 2 if dtype in (torch.float64, torch.float32) else 1)
    if not case.leaves or dtype not in FLOATS or not (op.differentiable or op.kind == "composite"):
        order = 0
    order = min(order, table.ORDER.get(op.name, 2))
    # The peer natively, for dtypes; the truth in float64 for floats narrower than that, but for
    # calls that name a dtype themselves.
    run = case.peer or op.peer
    widened = dtype in FLOATS and "dtype" not in case.attrs

    def fresh(widen):
        return [x if x is None else x.detach().to(torch.float64) if widen and x.dtype in FLOATS
                else x.detach().clone(memory_format=torch.preserve_format) for x in inputs]

    try:
        with torch.no_grad():
            native = outputs_of(run(*fresh(False), **case.attrs))
    except (RuntimeError, NotImplementedError, IndexError, ValueError, TypeError) as e:
        if dtype in (torch.float64, torch.float32):
            raise Mismatch(f"the peer failed: {type(e).__name__} {e}")
        report.refused += 1
        native = None
        if dtype not in FLOATS:
            return
    values = native
    if native is None:
        with torch.no_grad():
            values = outputs_of(run(*fresh(True), **case.attrs))
    r = Random("weights", repr(case.attrs), *[describe(x) for x in inputs])
    v, w = {}, {}  # what results and first gradients are multiplied by, by number
    if order:
        for i, y in enumerate(values):
            if y.dtype in FLOATS:
                v[i] = r.tensor(y.shape, dtype if native is None else y.dtype, 0.2, 1.5, plain=True)
    if order > 1:
        for i, k in enumerate(case.leaves):
            w[i] = r.tensor(inputs[k].shape, inputs[k].dtype, 0.2, 1.5, plain=True)

    def copies(weights):
        return {i: x.double() if widened else x.clone() for i, x in weights.items()}

    try:
        expected, first, second = peer_run(op, case, fresh(widened), order, copies(v), copies(w))
    except RuntimeError as e:
        raise Mismatch(f"the peer failed: {e}")

    # Nyx. Tensors of the request: inputs, v, w.
    sent, names = [], []
    for i, x in enumerate(inputs):
        if x is None:
            names.append("nil")
            continue
        if i in case.positions:
            x = torch.where(x >= 0, x + 1, x)
        sent.append(x)
        names.append(f"T[{len(sent)}]")
    parameters = [f"x{i}" for i in range(len(inputs))]
    while names and names[-1] == "nil":
        names.pop(), parameters.pop()
    v_text, w_text = [], []
    for text, given in ((v_text, v), (w_text, w)):
        for i, x in given.items():
            sent.append(x)
            text.append(f"[{i + 1}]=T[{len(sent)}]")
    call = op.call_text(case, parameters)
    if mutate:
        call = mutate(call)
    lua = (f"return differentiate(function({','.join(parameters)}) return {call} end, {{{','.join(names)}}}, "
           f"{len(names)}, {{{','.join(f'T[{i + 1}]' for i in leaf_numbers(case))}}}, {{{','.join(v_text)}}}, "
           f"{{{','.join(w_text)}}}, {order})")
    try:
        answer = worker.run(lua, sent)
    except NyxError as e:
        raise Mismatch(f"Nyx raised: {e}")
    count = int(answer.pop())
    results, answer = answer[:count], answer[count:]
    if count != len(expected):
        raise Mismatch(f"{count} results, expected {len(expected)}")
    for i, (got, want) in enumerate(zip(results, expected)):
        what = f"result {i + 1}"
        if got is None:
            raise Mismatch(f"{what} is nil")
        if i in table.POSITIONS_OUT.get(op.name, ()):
            got = got - 1
        if native is not None and got.dtype != native[i].dtype:
            raise Mismatch(f"{what} is {NAMES[got.dtype]}, expected {NAMES[native[i].dtype]}")
        if got.dtype in FLOATS:
            bound_check(report, got, want, got.dtype, 0, what, op)
        else:
            check_exact(got, want, what)
    for level, wanted in ((1, first), (2, second)):
        if level > order:
            break
        for i, want in enumerate(wanted):
            got = answer.pop(0)
            name = f"input {case.leaves[i] + 1}" if i < len(case.leaves) else "the incoming gradient"
            what = f"{('first', 'second')[level - 1]} gradient of {name}"
            shape = inputs[case.leaves[i]].shape if i < len(case.leaves) else list(v.values())[i - len(case.leaves)].shape
            got = torch.zeros(shape, dtype=dtype) if got is None else got
            want = torch.zeros(shape, dtype=dtype) if want is None else want
            report.gradients += 1
            bound_check(report, got, want, dtype, level, what, op)
    if order and dtype in (torch.float64, torch.float32):
        compare_forward(worker, op, case, call, sent, names, parameters, fresh(widened), dtype, report)


def compare_forward(worker, op, case, call, sent, names, parameters, inputs, dtype, report):
    """Forward mode: the derivatives of all results along random tangents of the leaves."""
    r = Random("tangents", repr(case.attrs), *[describe(x) for x in inputs])
    tangents = [r.tensor(inputs[k].shape, dtype, -1.5, 1.5, repeats=False) for k in case.leaves]

    def run(*leaves):
        args = list(inputs)
        for k, x in zip(case.leaves, leaves):
            args[k] = x
        return (case.peer or op.peer)(*args, **case.attrs)

    try:
        expected = peer_forward(run, tuple(inputs[k] for k in case.leaves),
                                tuple(t.to(inputs[k].dtype) for t, k in zip(tangents, case.leaves)),
                                op.name not in table.NO_FORWARD)
    except RuntimeError as e:
        raise Mismatch(f"the peer failed in forward mode: {e}")
    at = ",".join(f"T[{i + 1}]" for i in leaf_numbers(case))
    along = ",".join(f"T[{len(sent) + 1 + i}]" for i in range(len(tangents)))
    lua = f"return forward(function({','.join(parameters)}) return {call} end, {{{','.join(names)}}}, {len(names)}, {{{at}}}, {{{along}}})"
    try:
        answer = [y for y in worker.run(lua, [*sent, *tangents]) if y is not None]
    except NyxError as e:
        raise Mismatch(f"Nyx raised in forward mode: {e}")
    if len(answer) != len(expected):
        raise Mismatch(f"{len(answer)} derivatives, expected {len(expected)}")
    for i, (got, want) in enumerate(zip(answer, expected)):
        want = torch.zeros_like(got) if want is None else want
        bound_check(report, got, want, dtype, FORWARD, f"derivative {i + 1} in forward mode", op)


def leaf_numbers(case):
    """Which of the sent tensors are leaves."""
    at, numbers = 0, []
    for i, x in enumerate(case.inputs):
        if x is not None:
            if i in case.leaves:
                numbers.append(at)
            at += 1
    return numbers


def bound_check(report, got, want, dtype, level, what, op):
    bound = BOUNDS[dtype][abs(level)] * table.LOOSER.get((op.name, NAMES[dtype]), 1)
    top = torch.finfo(dtype).max
    want = want.detach()
    if dtype in (torch.float16, torch.bfloat16, torch.float32):
        want = want.to(dtype) if want.numel() and (want.abs() > top).any() else want
    error = error_of(got, want, dtype, what)
    report.note(dtype, level, error)
    if not error <= bound:
        difference = (got.double() - want.double()).abs().reshape(-1)
        at = difference.nan_to_num(0).argmax().item()
        raise Mismatch(f"{what}: error {error:.2e} above {bound:.0e}; element {at} is "
                       f"{got.reshape(-1)[at].item()!r}, expected {want.reshape(-1)[at].item()!r}")


def run_op(worker, op, seed, counts, only=None, mutate=None):
    """counts: cases by dtype. Gives a Report."""
    report = Report()
    for name in op.dtypes:
        dtype = DTYPES[name]
        if (op.name, name) in table.NOT_IN:
            continue
        for i in range(counts.get(name, 0)):
            if only is not None and only != (name, i):
                continue
            r = Random(seed, op.name, name, i)
            case = None
            try:
                case = op.make(r, dtype)
                report.cases += 1
                run_case(worker, op, case, dtype, report, mutate)
            except Mismatch as e:
                inputs = "; ".join(describe(x) for x in case.inputs) if case else ""
                report.failures.append(f"case {name}/{i}: {e}\n  attrs {case and case.attrs}; inputs {inputs}")
    return report
