"""Elementwise rows at the edges: nan, infinities, zeros of both signs, the largest and
smallest numbers, and the points where rows bend; values and first gradients. In narrow
integers and bool all pairs of values. Read next: ops.py, kernels/elementwise.def."""
import itertools
import math

import torch

import ops
import table
from ops import BOUNDS
from worker import NAMES, NyxError


def overflows(x, y):
    return y != 0 and math.isfinite(x) and math.isinf(x / y)


# Where Nyx answers otherwise on purpose, or more exactly: op, which points, why.
DIFFERENT = [
    ("sign", lambda x: math.isnan(x), "nan stays nan; torch gives 0"),
    ("remainder", overflows, "torch gives nan, Nyx the remainder"),
    ("fmod", overflows, "torch gives nan, Nyx the remainder"),
    ("gelu", lambda x: x < -5, "1 + erf(x) cancels out"),
    ("sinc", lambda x: math.isfinite(x) and x != 0 and x == round(x),
     "Nyx takes full turns away, torch's sin(pi x) is that of a rounded pi x"),
    ("logit", lambda x: x < 0 or x > 1, "torch's gradient is nan where the value is"),
    ("gelu_tanh", lambda x: x < -5, "Nyx is exact where torch's 1 + tanh(x) cancels out"),
    ("gate", lambda x, y: x > 15, "Nyx is exact where torch's 1 - sigmoid(x) cancels out"),
    ("gate", lambda x, y: x < -87, "sigmoid(x) in float32 is no normal number before y multiplies it"),
    ("swiglu", lambda x, y: x < -87, "the same of silu(x)"),
    ("geglu", lambda x, y: x < -5, "as gelu"),
    ("nextafter", lambda x, y: abs(x) > 3e38, "beyond the greatest float32 there are float64s"),
    ("logaddexp2", lambda x, y: x == y, "Nyx is exact where torch's -1 + 1 leaves a rest"),
    ("digamma", lambda x: x < 0 and x == round(x), "the gradient's pole; torch's sin(pi x) is not 0"),
    ("zeta", lambda x, y: math.isnan(x) or math.isnan(y) or x > 1e20 or math.isinf(y),
     "nan stays nan; torch gives nan for the limit, 0"),
    ("zeta", lambda x, y: y > 1e308, "torch's sum of such y overflows; it is subnormal, not 0"),
    ("zeta", lambda x, y: x > 5 and y < 0, "terms of both signs cancel out in torch"),
    ("i0", math.isinf, "torch gives nan for the limit"),
    ("i1", math.isinf, "torch gives nan for the limit"),
    ("hardswish", lambda x: x > 1e38, "x * 6 overflows before the division in float32"),
    ("tanhshrink", lambda x: 0 < abs(x) < 0.3, "x - tanh(x) cancels out"),
    ("binary_cross_entropy", lambda x, y: not (0 < x < 1 and 0 <= y <= 1), "no probabilities"),
    ("binary_cross_entropy_with_logits", lambda x, y: x == 0 or abs(x) > 1e38,
     "the peer's formula bends at 0, the function does not; x * y overflows in float32"),
]

BENDS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0, -3.0, 6.0, 20.0, 0.1, -7.5]
ENDS = [math.nan, math.inf, -math.inf, 1e-30, -1e-30, 1e30, -1e30, 100.0, -100.0, 700.0, -800.0, 1e5]


def points(dtype, n, ends):
    values = BENDS + (ENDS if ends else [])
    if ends:
        info = torch.finfo(dtype)
        values = values + [info.max, info.min, info.tiny, info.tiny / 4]
    if n == 3:
        values = [0.0, 1.0, -2.0, 0.5] + ([math.nan, math.inf] if ends else [])
    grid = list(itertools.product(values, repeat=n))
    return [torch.tensor(column, dtype=torch.float64).to(dtype) for column in zip(*grid)]


def unequal(got, want, bound):
    """Which elements differ: nan is nan, infinity infinity, others to the bound."""
    got, want = got.double(), want.double()
    same = (got == want) | (got.isnan() & want.isnan())
    tiny = 1e-37 if bound > 1e-8 else 1e-300
    near = (got - want).abs() <= bound * want.abs().clamp(min=tiny)
    return ~(same | near)


def different(op, inputs, k):
    point = [x[k].item() for x in inputs]
    return any(name == op.name and where(*point) for name, where, _ in DIFFERENT)


def describe(at, inputs, got, want):
    return f"at ({', '.join(f'{x[at].item():.6g}' for x in inputs)}): {got[at].item()!r}, torch {want[at].item()!r}"


# Rows that torch does not define for all of them: a quotient by 0, a power or a shift beyond
# the width.
NOT_NARROW = {"floor_divide", "remainder", "fmod", "pow", "bitwise_left_shift", "bitwise_right_shift"}
DIFFERENT_NARROW = {("square", "bool")}  # a bool like its product; torch gives int64


def narrow(tap, worker, every):
    """All pairs of values of a narrow dtype, exactly, in order and turned."""
    for op in every:
        if op.kind != "elementwise" or op.reason() or op.peer is None or op.name in NOT_NARROW:
            continue
        failures, cases = [], 0
        for dtype in (torch.int8, torch.uint8, torch.bool):
            name = NAMES[dtype]
            if name not in op.dtypes or (op.name, name) in DIFFERENT_NARROW:
                continue
            values = torch.arange(2 if dtype == torch.bool else 256).to(dtype)
            x, y = torch.meshgrid(values, values, indexing="ij")
            inputs = [x.contiguous(), y.contiguous(), (x ^ y.t()).contiguous()]
            if len(op.inputs) == 3:
                inputs = [(x > y), x.contiguous(), y.contiguous()] if op.name == "where" else inputs
            inputs = inputs[:len(op.inputs)]
            for turned in (False, True):
                sent = ",".join(f"T[{i + 1}]" + ":t()" * (turned and i == 0) for i in range(len(inputs)))
                try:
                    want = op.peer(*(v.t() if turned and i == 0 else v for i, v in enumerate(inputs)))
                except RuntimeError:  # torch does not have it for this dtype
                    continue
                if want.is_floating_point():
                    continue
                try:
                    got = worker.run(f"return nyx.{op.name}({sent})", inputs)[0]
                    cases += want.numel()
                    if got.dtype != want.dtype:
                        raise ops.Mismatch(f"is {NAMES[got.dtype]}, expected {NAMES[want.dtype]}")
                    ops.check_exact(got, want, "value")
                except (NyxError, ops.Mismatch) as e:
                    failures.append(f"{name}: {e}")
        if cases:
            tap.result(f"narrow pairs of {op.name}: {cases} points", failures)


def compare(tap, worker, every):
    narrow(tap, worker, every)
    for op in every:
        if op.kind != "elementwise" or op.reason() or op.peer is None:
            continue
        failures, cases = [], 0
        for dtype in (torch.float64, torch.float32):
            if NAMES[dtype] not in op.dtypes:
                continue
            inputs = points(dtype, len(op.inputs), True)
            names = ",".join(f"T[{i + 1}]" for i in range(len(inputs)))
            try:
                # float32 is held against float64: torch's own float32 is not always that exact
                want = op.peer(*(x.double() for x in inputs))
                want = want.to(dtype) if want.dtype == torch.float64 else want
                got = worker.run(f"return nyx.{op.name}({names})", inputs)[0]
            except (RuntimeError, NyxError) as e:
                failures.append(str(e))
                continue
            cases += len(want)
            wrong = unequal(got, want, BOUNDS[dtype][0]).nonzero().reshape(-1).tolist()
            wrong = [k for k in wrong if not different(op, inputs, k)]
            failures += [f"{NAMES[dtype]} {describe(k, inputs, got, want)}" for k in wrong[:4]]
            if not op.differentiable or dtype != torch.float64 or op.name in table.ORDER:
                continue
            inputs = points(dtype, len(op.inputs), False)
            leaves = [x.clone().requires_grad_() for x in inputs]
            wants = torch.autograd.grad(op.peer(*leaves).sum(), leaves, allow_unused=True)
            gots = worker.run(f"local x = {{{names}}} for i = 1, #x do x[i].requires_grad = true end "
                              f"local g = nyx.grad(nyx.{op.name}({names}):sum(), x) return g, #x", inputs)
            for i, (got, want) in enumerate(zip(gots, wants)):
                if want is None:
                    want = torch.zeros_like(inputs[i])
                if got is None:
                    got = torch.zeros_like(inputs[i])
                cases += len(want)
                wrong = unequal(got, want, 1e-9).nonzero().reshape(-1).tolist()
                wrong = [k for k in wrong if not different(op, inputs, k)]
                failures += [f"gradient {i + 1} {describe(k, inputs, got, want)}" for k in wrong[:4]]
        tap.result(f"edges of {op.name}: {cases} points", failures)
