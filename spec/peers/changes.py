"""Changes in place through views: random programs of views, ops and changes, run on both
sides in float64; values, first and second gradients. Read next: core/grad/view.c,
docs/decisions/008-changes-through-views.md."""
import torch

from cases import Random
from ops import BOUNDS, Mismatch, error_of
from worker import NyxError

LUA = """
local v, x, w = {}, {}, {}
for i = 1, LEAVES do
  x[i] = T[i]
  x[i].requires_grad = true
end
PROGRAM
local sum
for i = 1, #v do
  local part = (v[i]:sin() * (i * 0.1 + 0.5)):sum()
  sum = sum and sum + part or part
end
local g = nyx.grad(sum, x, { create_graph = true })
local all = {}
for i = 1, #v do all[i] = v[i]:detach() end
local second
for i = 1, LEAVES do
  all[#v + i] = g[i]
  if g[i] then
    local part = (g[i] * g[i]):sum()
    second = second and second + part or part
  end
end
local h = second and second.requires_grad and nyx.grad(second, x) or {}
for i = 1, LEAVES do all[#v + LEAVES + i] = h[i] end
return all, #v + 2 * LEAVES
"""


class Program:
    """Lines of Lua and the same as functions over torch's tensors, made while running."""

    def __init__(self, r, moved=None):
        self.r, self.moved = r, moved  # moved: one element of a leaf, and by how much
        self.lines, self.v, self.repeats, self.leaves = [], [], [], []

    def new(self, text, value, repeats=False):
        self.lines.append(f"v[{len(self.v) + 1}] = {text}")
        self.v.append(value)
        self.repeats.append(repeats)

    def leaf_like(self, shape):
        """A leaf that broadcasts to a shape."""
        own = [1 if self.r.chance(0.2) else n for n in shape]
        own = own[self.r.randint(0, len(shape)) if self.r.chance(0.2) else 0:]
        for i, x in enumerate(self.leaves):
            if list(x.shape) == own:
                return i
        x = self.r.values(max(1, torch.Size(own).numel()), torch.float64, -1, 1)
        if self.moved and self.moved[0] == len(self.leaves):
            x[self.moved[1]] += self.moved[2]
        self.leaves.append(x.reshape(own).requires_grad_())
        return len(self.leaves) - 1

    def base(self):
        r = self.r
        shape = r.shape(1, 3, 4, 0)
        i = self.leaf_like(shape)
        if r.chance(0.3):  # not recorded, until something recorded is written to it
            text = ", ".join(map(str, shape))
            self.new(f'nyx.ones({text}, {{ dtype = "float64" }})', torch.ones(shape, dtype=torch.float64))
        else:
            self.new(f"x[{i + 1}] * 1.5", self.leaves[i] * 1.5)

    def view(self):
        r = self.r
        k = r.randrange(len(self.v))
        t, name, kept = self.v[k], f"v[{k + 1}]", self.repeats[k]
        n = t.ndim
        kind = r.choice(["select", "narrow", "transpose", "unsqueeze", "view", "expand", "diagonal", "squeeze",
                         "narrow", "select", "unfold", "alias"])
        if kind == "unsqueeze" and n < 4:
            d = r.randint(0, n)
            self.new(f"{name}:unsqueeze({d + 1})", t.unsqueeze(d), kept)
        elif kind == "squeeze":
            self.new(f"{name}:squeeze()", t.squeeze(), kept)
        elif kind == "alias":
            self.new(f"{name}[{{}}]", t[:], kept) if n else None
        elif n == 0:
            return
        elif kind == "select":
            d = r.randrange(n)
            at = r.randrange(t.shape[d])
            self.new(f"{name}:select({d + 1}, {at + 1})", t.select(d, at), kept)
        elif kind == "narrow":
            d = r.randrange(n)
            start = r.randrange(t.shape[d])
            step = r.choice([1, 1, 2])
            length = r.randint(1, -(-(t.shape[d] - start) // step))
            cut = [slice(None)] * n
            cut[d] = slice(start, start + (length - 1) * step + 1, step)
            self.new(f"{name}:narrow({d + 1}, {start + 1}, {length}, {step})", t[tuple(cut)], kept)
        elif kind == "transpose":
            a, b = r.randrange(n), r.randrange(n)
            self.new(f"{name}:transpose({a + 1}, {b + 1})", t.transpose(a, b), kept)
        elif kind == "view" and t.is_contiguous():
            self.new(f"{name}:view({t.numel()})", t.view(t.numel()), kept)
        elif kind == "expand" and n < 4:
            shape = [2, *t.shape]
            self.new(f"{name}:expand({', '.join(map(str, shape))})", t.expand(shape), True)
        elif kind == "diagonal" and n > 1:
            self.new(f"{name}:diagonal()", t.diagonal(), kept)
        elif kind == "unfold" and n < 4:
            size = r.randint(1, t.shape[-1])
            self.new(f"{name}:unfold({n}, {size}, {size})", t.unfold(n - 1, size, size), kept)

    def operand(self, shape):
        """Something recorded, or not, to change a tensor of this shape with."""
        r = self.r
        same = [k for k, t in enumerate(self.v) if t.shape == shape]
        if same and r.chance(0.3):
            k = r.choice(same)
            return f"v[{k + 1}]:cos()", self.v[k].cos()
        i = self.leaf_like(shape)
        if r.chance(0.5):
            return f"x[{i + 1}]", self.leaves[i]
        return f"x[{i + 1}]:sin()", self.leaves[i].sin()

    def change(self):
        r = self.r
        k = r.randrange(len(self.v))
        t, name = self.v[k], f"v[{k + 1}]"
        if self.repeats[k]:
            return
        kind = r.choice(["mul", "add", "sub", "mul_number", "mul_self", "tanh", "sin", "copy", "fill", "assign"])
        if kind in ("mul", "add", "sub"):
            text, value = self.operand(t.shape)
            self.lines.append(f"{name}:{kind}_({text})")
            getattr(t, kind + "_")(value)
        elif kind == "mul_number":
            self.lines.append(f"{name}:mul_(0.75)")
            t.mul_(0.75)
        elif kind in ("tanh", "sin"):
            self.lines.append(f"{name}:{kind}_()")
            getattr(t, kind + "_")()
        elif kind == "copy":
            text, value = self.operand(t.shape)
            self.lines.append(f"{name}:copy_({text})")
            t.copy_(value)
        elif kind == "fill":
            self.lines.append(f"{name}:fill_(0.5)")
            t.fill_(0.5)
        elif kind == "mul_self":
            self.lines.append(f"{name}:mul_({name}:detach():clone())")
            t.mul_(t.detach().clone())
        elif kind == "assign" and t.ndim:
            at = r.randrange(t.shape[0])
            text, value = self.operand(t[at].shape)
            self.lines.append(f"{name}[{at + 1}] = {text}")
            t[at] = value

    def op(self):
        k = self.r.randrange(len(self.v))
        t, name = self.v[k], f"v[{k + 1}]"
        what = self.r.choice(["sin", "tanh", "scaled"])
        if what == "scaled":
            self.new(f"{name} * 0.9", t * 0.9)
        else:
            self.new(f"{name}:{what}()", getattr(t, what)())


def build(seed, number, moved=None):
    """The program and its result; an error where torch refuses to run it."""
    r = Random(seed, "changes", number)
    p = Program(r, moved)
    for _ in range(r.randint(1, 2)):
        p.base()
    for _ in range(r.randint(3, 12)):
        r.choice([p.view, p.view, p.change, p.change, p.op])()
    return p, sum((t.sin() * ((i + 1) * 0.1 + 0.5)).sum() for i, t in enumerate(p.v))


def run_peer(seed, number):
    """The program with its values and gradients, None where there is no graph; None: torch
    refuses it."""
    try:
        p, total = build(seed, number)
        if not total.requires_grad:
            return p, None, None, None
        first = torch.autograd.grad(total, p.leaves, create_graph=True, allow_unused=True)
        second = sum((g * g).sum() for g in first if g is not None)
        recorded = torch.is_tensor(second) and second.requires_grad
        others = torch.autograd.grad(second, p.leaves, allow_unused=True) if recorded else [None] * len(first)
    except RuntimeError:
        return None  # a value that a gradient needs was changed; memory that overlaps
    return p, [t.detach() for t in p.v], list(first), list(others)


@torch.no_grad()
def run_numeric(worker, seed, number):
    """A program whose gradients torch refuses: Nyx refuses, too, or gives those of finite
    differences. Says whether it gave any."""
    try:
        p, _ = build(seed, number)
    except RuntimeError:
        return False  # it cannot even run
    lua = LUA.replace("LEAVES", str(len(p.leaves))).replace("PROGRAM", "\n".join(p.lines))
    try:
        got = worker.run(lua, [x.detach() for x in p.leaves])
    except NyxError as e:
        if any(text in str(e) for text in ("was changed in place", "repeats elements")):
            return False
        raise
    if any("detach" in line for line in p.lines):
        return False  # differences see through it
    r, step = Random(seed, "differences", number), 1e-5
    for _ in range(4):
        i = r.randrange(len(p.leaves))
        k = r.randrange(p.leaves[i].numel())
        ends = [build(seed, number, (i, k, s))[1].item() for s in (step, -step)]
        want = (ends[0] - ends[1]) / (2 * step)
        g = got[len(p.v) + i]
        have = 0.0 if g is None else g.reshape(-1)[k].item()
        if not abs(have - want) <= 1e-6 * max(1.0, abs(want)):
            raise Mismatch(f"leaf {i + 1}[{k}]: gradient {have}, by differences {want}\n  " + "\n  ".join(p.lines))
    return True


def check(what, got, want):
    for i, (a, b) in enumerate(zip(got, want)):
        if a is None and b is None:
            continue
        a = torch.zeros_like(b) if a is None else a
        b = torch.zeros_like(a) if b is None else b.detach()
        error = error_of(a, b, torch.float64, f"{what} {i + 1}")
        if not error <= BOUNDS[torch.float64][0]:
            raise Mismatch(f"{what} {i + 1}: error {error:.2e}")
        yield error


def compare(tap, worker, seed, count):
    failures, ran, refused, more, worst = [], 0, 0, 0, 0.0
    for number in range(20 * count):
        peer = run_peer(seed, number)
        if peer is None:
            refused += 1
            try:
                more += run_numeric(worker, seed, number)
            except (Mismatch, NyxError) as e:
                failures.append(f"program {number}: {e}")
            continue
        p, values, first, second = peer
        lua = LUA.replace("LEAVES", str(len(p.leaves))).replace("PROGRAM", "\n".join(p.lines))
        try:
            try:
                got = worker.run(lua, [x.detach() for x in p.leaves])
            except NyxError as e:
                if values is None and "does not require a gradient" in str(e):
                    continue
                raise
            if values is None:
                raise Mismatch("there is a graph, torch has none")
            n, m = len(values), len(first)
            for what, a, b in (("value", got[:n], values), ("gradient", got[n:n + m], first),
                               ("second gradient", got[n + m:], second)):
                for error in check(what, a, b):
                    worst = max(worst, error)
            ran += 1
        except (Mismatch, NyxError) as e:
            failures.append(f"program {number}: {e}\n  " + "\n  ".join(p.lines))
    if ran < 4 * count and not failures:
        failures.append(f"only {ran} of {20 * count} programs ran")
    tap.result(f"changes through views: {ran} programs of {ran + refused}, {worst:.1e}; {more} that torch "
               "refuses by finite differences", failures)
