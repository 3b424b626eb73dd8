"""See lua/nyx/bench/cases/elementwise.lua."""
import torch
from torch.nn.functional import gelu, silu

from .common import case, values

SIZES = {"1m": 2**20, "16m": 2**24}


def binary(op, size, n):
    @case(f"{op.__name__}_{size}")
    def fresh():
        x, y = values(1, n), values(2, n)
        return lambda: op(x, y)

    @case(f"{op.__name__}_{size}_out")
    def into():
        x, y, out = values(1, n), values(2, n), torch.empty(n)
        return lambda: op(x, y, out=out)


def unary(name, op, op_into, size, n):
    @case(f"{name}_{size}")
    def fresh():
        x = values(1, n) * 2
        return lambda: op(x)

    @case(f"{name}_{size}_out")
    def into():
        x, out = values(1, n) * 2, torch.empty(n)
        return lambda: op_into(x, out)


for size, n in SIZES.items():
    binary(torch.add, size, n)
    binary(torch.mul, size, n)
    for op in (torch.exp, torch.tanh, torch.sigmoid):
        unary(op.__name__, op, lambda x, out, op=op: op(x, out=out), size, n)
    # Those without a public `out`: the functions behind them.
    unary("relu", torch.relu, lambda x, out: torch.clamp_min(x, 0, out=out), size, n)
    unary("gelu", gelu, lambda x, out: torch.ops.aten.gelu.out(x, out=out), size, n)
    unary("silu", silu, lambda x, out: torch.ops.aten.silu.out(x, out=out), size, n)


@case("add_transposed_4096")
def add_transposed():
    x = values(1, 4096, 4096)
    return lambda: x + x.t()


@case("contiguous_transposed_4096")
def contiguous_transposed():
    x = values(1, 4096, 4096)
    return lambda: x.t().contiguous()
