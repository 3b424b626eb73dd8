"""Complex tensors and Fourier transforms against torch: values, dtypes, and gradients of first
and second order by complex and real inputs, of any strides. A function is one expression in two
languages over inputs x, y and z. Read next: FUNCTIONS, ops.py."""
import torch

from cases import Random
from ops import Mismatch, check_exact, error_of
from worker import COMPLEX, DTYPES, NAMES, NyxError

BOUND = 1e-9
WIDE, NARROW = torch.complex128, torch.complex64


def wider(x):
    """At least three elements in a row, so that they have a variance."""
    return torch.cat([x, 2 * x, -x], -1)


# name: (kinds of the inputs, torch, Lua). Kinds: c complex, r real, b bool; p positive real;
# a number after it: so many dimensions at least.
FUNCTIONS = {
    "add": ("cc", lambda x, y: x + y, "x + y"),
    "add a real": ("cr", lambda x, y: x + y, "x + y"),
    "add to a real": ("rc", lambda x, y: x + y, "x + y"),
    "add a number": ("c", lambda x: x + 2.5, "x + 2.5"),
    "sub": ("cc", lambda x, y: x - y, "x - y"),
    "sub from a real": ("rc", lambda x, y: x - y, "x - y"),
    "mul": ("cc", lambda x, y: x * y, "x * y"),
    "mul by a real": ("cr", lambda x, y: x * y, "x * y"),
    "mul a real by": ("rc", lambda x, y: x * y, "x * y"),
    "mul by a number": ("c", lambda x: -1.5 * x, "-1.5 * x"),
    "div": ("cc", lambda x, y: x / y, "x / y"),
    "div by a real": ("cp", lambda x, y: x / y, "x / y"),
    "div a number": ("c", lambda x: 2 / x, "2 / x"),
    "neg": ("c", lambda x: -x, "-x"),
    "reciprocal": ("c", torch.reciprocal, "x:reciprocal()"),
    "square": ("c", torch.square, "x:square()"),
    "pow": ("cc", torch.pow, "x:pow(y)"),
    "pow of a real": ("pc", torch.pow, "x:pow(y)"),
    "pow of a number": ("c", lambda x: x ** 3, "x ^ 3"),
    "abs": ("c", torch.abs, "x:abs()"),
    "angle": ("c", torch.angle, "x:angle()"),
    "angle of a real": ("r", torch.angle, "x:angle()"),
    "conj": ("c", lambda x: x.conj().resolve_conj(), "x:conj()"),
    "conj of a real": ("r", torch.conj, "x:conj()"),
    "real": ("c", lambda x: x.real, "x:real()"),
    "imag": ("c", lambda x: x.imag, "x:imag()"),
    "view_as_real": ("c", torch.view_as_real, "x:view_as_real()"),
    "complex": ("rr", torch.complex, "nyx.complex(x, y)"),
    "polar": ("pr", torch.polar, "nyx.polar(x, y)"),
    "exp": ("c", torch.exp, "x:exp()"),
    "log": ("c", torch.log, "x:log()"),
    "sqrt": ("c", torch.sqrt, "x:sqrt()"),
    "sin": ("c", torch.sin, "x:sin()"),
    "cos": ("c", torch.cos, "x:cos()"),
    "sinh": ("c", torch.sinh, "x:sinh()"),
    "cosh": ("c", torch.cosh, "x:cosh()"),
    "tan": ("c", torch.tan, "x:tan()"),
    "tanh": ("c", torch.tanh, "x:tanh()"),
    "asin": ("c", torch.asin, "x:asin()"),
    "acos": ("c", torch.acos, "x:acos()"),
    "atan": ("c", torch.atan, "x:atan()"),
    "asinh": ("c", torch.asinh, "x:asinh()"),
    "acosh": ("c", torch.acosh, "x:acosh()"),
    "atanh": ("c", torch.atanh, "x:atanh()"),
    "exp2": ("c", torch.exp2, "x:exp2()"),
    "expm1": ("c", torch.expm1, "x:expm1()"),
    "log1p": ("c", torch.log1p, "x:log1p()"),
    "log2": ("c", torch.log2, "x:log2()"),
    "log10": ("c", torch.log10, "x:log10()"),
    "rsqrt": ("c", torch.rsqrt, "x:rsqrt()"),
    "sigmoid": ("c", torch.sigmoid, "x:sigmoid()"),
    "sgn": ("c", torch.sgn, "x:sgn()"),
    "where": ("bcc", torch.where, "nyx.where(x, y, z)"),
    "sum": ("c", torch.sum, "x:sum()"),
    "sum of rows": ("c1", lambda x: x.sum(-1), "x:sum(-1)"),
    "sum of columns": ("c1", lambda x: x.sum(0, keepdim=True), "x:sum(1, true)"),
    "mean": ("c1", lambda x: x.mean(0), "x:mean(1)"),
    "prod": ("c", torch.prod, "x:prod()"),
    "prod of rows": ("c1", lambda x: x.prod(-1), "x:prod(-1)"),
    "prod of columns": ("c1", lambda x: x.prod(0, keepdim=True), "x:prod(1, true)"),
    "prod with zeros": ("cb1", lambda x, y: x.masked_fill(y, 0.0).prod(-1), "x:masked_fill(y, 0):prod(-1)"),
    "var": ("c1", lambda x: wider(x).var(-1), "nyx.cat({x, 2 * x, -x}, -1):var(-1)"),
    "var of columns": ("c1", lambda x: wider(x).var(-1, correction=0, keepdim=True),
                       "nyx.cat({x, 2 * x, -x}, -1):var(-1, 0, true)"),
    "std": ("c1", lambda x: wider(x).std(-1), "nyx.cat({x, 2 * x, -x}, -1):std(-1)"),
    "var_mean": ("c1", lambda x: sum(torch.var_mean(wider(x), -1)),
                 "(function(v, m) return v + m end)(nyx.cat({x, 2 * x, -x}, -1):var_mean(-1))"),
    "cumsum": ("c1", lambda x: x.cumsum(-1), "x:cumsum(-1)"),
    "cumsum of columns": ("c1", lambda x: x.cumsum(0), "x:cumsum(1)"),
    "sum of both ends": ("c2", lambda x: x.sum((0, -1)), "x:sum({1, -1})"),
    "norm": ("c1", lambda x: torch.linalg.vector_norm(x, 2, -1), "x:norm(2, -1)"),
    "cat": ("cc1", lambda x, y: torch.cat([x.reshape(-1), y.reshape(-1)]),
            "nyx.cat({x:reshape(-1), y:reshape(-1)})"),
    "stack": ("c", lambda x: torch.stack([x, 2 * x], -1), "nyx.stack({x, 2 * x}, -1)"),
    "flip": ("c1", lambda x: x.flip(0), "x:flip(1)"),
    "roll": ("c1", lambda x: x.roll(2, -1), "x:roll(2, -1)"),
    "pad": ("c1", lambda x: torch.nn.functional.pad(x, (1, 2), value=3.0),
            "x:pad({1, 2}, \"constant\", 3)"),
    "tile": ("c1", lambda x: x.tile((2, 3)), "x:tile({2, 3})"),
    "repeat_interleave": ("c1", lambda x: x.repeat_interleave(2, 0), "x:repeat_interleave(2, 1)"),
    "tril": ("c2", torch.tril, "x:tril()"),
    "triu": ("c2", lambda x: x.triu(1), "x:triu(1)"),
    "permute": ("c2", lambda x: x.transpose(0, -1).contiguous(), "x:transpose(1, -1):contiguous()"),
    "reshape": ("c2", lambda x: x.transpose(0, 1).reshape(-1), "x:transpose(1, 2):reshape(-1)"),
    "index": ("c1", lambda x: x[[0, 0, -1]], "x:index_select(nyx.tensor({1, 1, x:size(1)}, "
              "{dtype = \"int64\"}), 1)"),
    "masked_fill": ("cb", lambda x, y: x.masked_fill(y, 2.0), "x:masked_fill(y, 2)"),
    "slice": ("c1", lambda x: x[:1], "x[{{1, 1}}]"),
    "matmul": ("cc2", lambda x, y: x.reshape(-1, x.shape[-1]) @ y.reshape(-1, y.shape[-1])[:1].expand(x.shape[-1], -1),
               "x:reshape{-1, x:size(-1)}:matmul(y:reshape{-1, y:size(-1)}[{{1, 1}}]:expand{x:size(-1), -1})"),
    "outer": ("cr1", lambda x, y: x.reshape(-1, 1) @ y.reshape(1, -1).to(x.dtype),
              "x:reshape{-1, 1}:matmul(y:reshape{1, -1})"),
    "matmul of batches": ("cc2", lambda x, y: x @ y.transpose(-1, -2), "x:matmul(y:transpose(-1, -2))"),
    "matmul of a real": ("rc2", lambda x, y: x.to(y.dtype) @ y.transpose(-1, -2), "x:matmul(y:transpose(-1, -2))"),
    "matmul by a real": ("cr2", lambda x, y: x @ y.transpose(-1, -2).to(x.dtype), "x:matmul(y:transpose(-1, -2))"),
    "matmul of vectors": ("cc1", lambda x, y: x.reshape(-1) @ y.reshape(-1), "x:reshape(-1):matmul(y:reshape(-1))"),
    "matmul by a vector": ("cc2", lambda x, y: x @ y.reshape(-1)[:y.shape[-1]],
                           "x:matmul(y:reshape(-1)[{{1, y:size(-1)}}])"),
    "matmul of a vector": ("cc2", lambda x, y: x.reshape(-1)[:x.shape[-1]] @ y.transpose(-1, -2),
                           "x:reshape(-1)[{{1, x:size(-1)}}]:matmul(y:transpose(-1, -2))"),
    "matmul of a real vector": ("rc1", lambda x, y: x.reshape(-1).to(y.dtype) @ y.reshape(-1),
                                "x:reshape(-1):matmul(y:reshape(-1))"),
    "to": ("r", lambda x: x.to(WIDE), "x:to \"complex128\""),
    "narrow and back": ("c", lambda x: x.to(NARROW).to(WIDE), "x:to \"complex64\":to \"complex128\""),
}

# Values alone, exact.
COMPARISONS = {
    "eq": ("cc", lambda x, y: torch.where(x.real > 0, x, y) == y, "nyx.where(x:real():gt(0), x, y):eq(y)"),
    "ne": ("cc", lambda x, y: torch.where(x.real > 0, x, y) != y, "nyx.where(x:real():gt(0), x, y):ne(y)"),
    "isnan": ("cb", lambda x, y: torch.isnan(x.masked_fill(y, float("nan"))), "x:masked_fill(y, 0/0):isnan()"),
    "isinf": ("cb", lambda x, y: torch.isinf(x.masked_fill(y, float("-inf"))), "x:masked_fill(y, -1/0):isinf()"),
    "isfinite": ("c", torch.isfinite, "x:isfinite()"),
}


def fourier(r):
    """One call of torch.fft: kinds of the input, and a call in two languages."""
    name = r.choice(["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "ifft2", "rfft2",
                     "irfft2", "fftn", "ifftn", "rfftn", "irfftn", "fftshift", "ifftshift"])
    real = name in ("rfft", "ihfft", "rfft2", "rfftn") or r.chance(0.2)
    peer = getattr(torch.fft, name)
    if name.endswith("shift"):
        return f"{name}", "c1", peer, f"nyx.fft.{name}(x)"
    kwargs, lua = {}, []
    ndim = 3 if name[-1] in "2n" else 2
    sized = name.startswith("irfft") or name == "hfft"  # of one element they would have none
    if r.chance(0.6):
        kwargs["norm"] = r.choice(["forward", "backward", "ortho"])
        lua.append(f'norm = "{kwargs["norm"]}"')
    if name[-1] in "2n":
        if r.chance(0.5):
            dims = r.sample(range(ndim), 2)
            kwargs["dim"] = tuple(dims)
            lua.append("dim = {%d, %d}" % (dims[0] + 1, dims[1] + 1))
        if sized or r.chance(0.5):
            sizes = [r.randint(2, 9), r.randint(2, 9)]
            kwargs["s"] = sizes
            kwargs.setdefault("dim", (-2, -1))
            lua.append("s = {%d, %d}" % tuple(sizes))
            if not any(part.startswith("dim") for part in lua):
                lua.append("dim = {-2, -1}")
    else:
        if r.chance(0.5):
            dim = r.randrange(ndim)
            kwargs["dim"] = dim
            lua.append(f"dim = {dim + 1}")
        if sized or r.chance(0.6):
            n = r.choice([2, 3, 4, 5, 7, 8, 11, 12, 15, 16, 17, 23, 30, 32, 37, 64])
            kwargs["n"] = n
            lua.append(f"n = {n}")
    text = f"nyx.fft.{name}(x, {{{', '.join(lua)}}})"
    return text, ("r" if real else "c") + str(ndim), lambda x: peer(x, **kwargs), text


def inputs_of(r, kinds):
    low = int(kinds[-1]) if kinds[-1].isdigit() else 0
    kinds = kinds.rstrip("0123456789")
    shape = [r.randint(1, 6) for _ in range(r.randint(low, max(low, 3)))]
    if len(shape) and r.chance(0.3):
        shape[r.randrange(len(shape))] = r.choice([2, 17, 40])
    made = []
    for k in kinds:
        if k == "b":
            made.append(r.mask(shape))
        elif k == "c":
            pairs = [r.tensor(shape, lo=-2, hi=2, repeats=False) for _ in range(2)]
            x = torch.complex(*pairs)
            if len(shape) > 1 and r.chance(0.5):  # other strides
                x = x.transpose(0, -1).contiguous().transpose(0, -1)
            made.append(x)
        else:
            made.append(r.tensor(shape, lo=0.3 if k == "p" else -2, hi=2, repeats=False))
    return made


LUA = """local inputs, w, v = {}, T[%d], {}
for i = 1, %d do inputs[i] = T[i] end
local x, y, z = inputs[1], inputs[2], inputs[3]
for i = 1, %d do v[i] = T[%d + i] end
local function real(a, b) -- Re of the inner product
  local p = a * b:conj()
  return (p.dtype:find "complex" and p:real() or p):sum()
end
local leaves = {}
for i = 1, %d do
  if inputs[i].dtype ~= "bool" then leaves[#leaves + 1] = inputs[i]:requires_grad_() end
end
local result = %s
local g = nyx.grad(real(result, w), leaves, {create_graph = true})
local total = nyx.zeros({}, {dtype = "float64"})
for i = 1, #leaves do
  if g[i] and g[i].requires_grad then total = total + real(g[i], v[i]) end
end
local all = {result}
for i = 1, #leaves do all[#all + 1] = g[i] or nyx.zeros_like(leaves[i]) end
local h = total.requires_grad and nyx.grad(total, leaves) or {}
for i = 1, #leaves do all[#all + 1] = h[i] or nyx.zeros_like(leaves[i]) end
return (table.unpack or unpack)(all)"""


def inner(a, b):
    p = a * b.conj()
    return (p.real if p.is_complex() else p).sum()


def like(r, t):
    if t.is_complex():
        return torch.complex(r.tensor(t.shape, plain=True, lo=-1, hi=1), r.tensor(t.shape, plain=True, lo=-1, hi=1))
    return r.tensor(t.shape, plain=True, lo=-1, hi=1)


def pairs(t):
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def check(worker, r, kinds, peer, lua):
    xs = inputs_of(r, kinds)
    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() if x.dtype != torch.bool else x
              for x in xs]
    result = peer(*leaves)
    wanted = [x for x in leaves if x.dtype != torch.bool]
    w = like(r, result)
    g = torch.autograd.grad(inner(result, w), wanted, create_graph=True, allow_unused=True)
    v = [like(r, x) for x in wanted]
    total = sum(inner(a, b) for a, b in zip(g, v) if a is not None and a.requires_grad)
    h = torch.autograd.grad(total, wanted, allow_unused=True) if torch.is_tensor(total) else [None] * len(wanted)
    text = LUA % (len(xs) + 1, len(xs), len(v), len(xs) + 1, len(xs), lua)
    got = worker.run(text, xs + [w] + v)
    expected = [result.detach()] + [a if a is not None else torch.zeros_like(x)
                                    for group in (g, h) for a, x in zip(group, wanted)]
    worst = 0.0
    for i, (a, b) in enumerate(zip(got, expected)):
        what = "the result" if i == 0 else f"gradient {i}"
        if a.dtype != b.dtype:
            raise Mismatch(f"{what} is {NAMES[a.dtype]}, expected {NAMES[b.dtype]}")
        bound = 1e-6 if "complex64" in lua else BOUND
        error = error_of(pairs(a), pairs(b.detach()), torch.float64, what)
        worst = max(worst, error)
        if error > bound:
            raise Mismatch(f"{what} is off by {error:.2g}")
    return worst


def run(tap, worker, name, seed, count, case):
    failures, worst = [], 0.0
    for number in range(count):
        r = Random(seed, "complex", name, number)
        label, kinds, peer, lua = case(r)
        try:
            worst = max(worst, check(worker, r, kinds, peer, lua))
        except (NyxError, Mismatch) as e:
            failures.append(f"{label}, case {number}: {e}")
        except (RuntimeError, IndexError) as e:
            failures.append(f"{label}, case {number}: torch says {e}")
    tap.result(f"complex {name}: {count} cases, {worst:.1e}", failures)


def promotion(tap, worker):
    failures, count = [], 0
    for op in ("add", "mul", "div", "sub", "pow"):
        for a in list(DTYPES.values()) + list(COMPLEX.values()):
            for b in COMPLEX.values():
                for x, y in ((torch.tensor([1, 2]).to(a), torch.tensor(2).to(b)),
                             (torch.tensor(2).to(a), torch.tensor([1, 2]).to(b)),
                             (torch.tensor([1, 2]).to(b), torch.tensor([2, 1]).to(a))):
                    if torch.float16 in (a, b) or torch.bfloat16 in (a, b):
                        continue  # torch has complex32
                    if op == "sub" and torch.bool in (a, b):
                        continue
                    expected = getattr(torch, op)(x, y)
                    count += 1
                    try:
                        got = worker.run(f"return nyx.{op}(T[1], T[2])", [x, y])[0]
                        if got.dtype != expected.dtype:
                            raise Mismatch(f"is {NAMES[got.dtype]}, expected {NAMES[expected.dtype]}")
                        if not torch.allclose(got, expected, rtol=1e-5):
                            raise Mismatch(f"is {got.tolist()}, expected {expected.tolist()}")
                    except (NyxError, Mismatch) as e:
                        failures.append(f"{op}({NAMES[x.dtype]}, {NAMES[y.dtype]}): {e}")
    tap.result(f"complex promotion: {count} pairs", failures)


def compare(tap, worker, seed, count):
    for name, (kinds, peer, lua) in FUNCTIONS.items():
        run(tap, worker, name, seed, max(count // 2, 4), lambda r, k=kinds, p=peer, t=lua, n=name: (n, k, p, t))
    for name, (kinds, peer, lua) in COMPARISONS.items():
        failures = []
        for number in range(4):
            xs = inputs_of(Random(seed, "complex", name, number), kinds)
            try:
                lines = "".join(f"local {n} = T[{i + 1}]\n" for i, n in enumerate("xyz"[:len(xs)]))
                check_exact(worker.run(lines + "return " + lua, xs)[0], peer(*xs), "the result")
            except (NyxError, Mismatch) as e:
                failures.append(f"case {number}: {e}")
        tap.result(f"complex {name}: 4 cases", failures)
    promotion(tap, worker)
    run(tap, worker, "fourier transforms", seed, count * 8, fourier)
