"""See lua/nyx/bench/cases/overhead.lua."""
import torch
from torch.nn.functional import gelu, linear

from .common import case, values


def add16(name, requires_grad):
    @case(name)
    def make():
        x, y = values(1, 16).requires_grad_(requires_grad), values(2, 16)

        def run(n):
            for _ in range(n):
                x + y
        return lambda: x + y, run


add16("add_16", False)
add16("add_16_recording", True)


def add_out(name, size):
    @case(name)
    def make():
        x, y, out = values(1, size), values(2, size), torch.empty(size)

        def run(n):
            for _ in range(n):
                torch.add(x, y, out=out)
        return lambda: torch.add(x, y, out=out), run


add_out("add_16_out", 16)
add_out("threads_wake", 65536)


def chain(name, n):
    @case(name)
    def make():
        x = values(1, n).requires_grad_(True)

        def step():
            x.grad = None
            y = torch.log1p((((x * 2).tanh() + 1).square().sigmoid() * x).exp()) - 0.5
            gelu(y).sum().backward()
            return x.grad
        return step


chain("chain_1k_backward", 1000)
chain("chain_1m_backward", 1000000)


def two_layers():
    p = [values(1, 64, 32) * 0.1, torch.zeros(64), values(2, 10, 64) * 0.1, torch.zeros(10)]

    def loss(q, x, y):
        out = linear(linear(x, q[0], q[1]).tanh(), q[2], q[3])
        return (out - y).square().mean()
    return p, loss, values(3, 64, 32), values(4, 64, 10)


@case("per_sample_gradients")
def per_sample_gradients():
    p, loss, x, y = two_layers()
    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))
    return lambda: gradients(p, x, y)


@case("hvp")
def hvp():
    p, loss, x, y = two_layers()
    v = [values(10 + i, *w.shape) for i, w in enumerate(p, 1)]

    def step():
        both = torch.func.jvp(torch.func.grad_and_value(lambda q: loss(q, x, y)), (p,), (v,))
        return both[1][0][0]
    return step
