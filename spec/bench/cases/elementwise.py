"""See lua/nyx/bench/cases/elementwise.lua."""
import torch
from torch.nn.functional import gelu, silu

from .common import case, integers, values

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


def special(op):
    @case(f"{op.__name__.replace('special_', '')}_1m")
    def fresh():
        x = values(1, 2**20).sigmoid()
        return lambda: op(x)


for op in (torch.lgamma, torch.digamma, torch.erfinv, torch.i0, torch.special.i1e):
    special(op)


def narrow(seed):
    return integers(seed, -60, 60, 2**20).to(torch.int8)


def narrow_binary(op):
    @case(f"{op.__name__}_int8_1m")
    def fresh():
        x, y = narrow(1), narrow(2)
        return lambda: op(x, y)


for op in (torch.add, torch.maximum, torch.lt):
    narrow_binary(op)


@case("lt_1m")
def lt():
    x, y = values(1, 2**20), values(2, 2**20)
    return lambda: x < y


@case("logical_and_1m")
def logical_and():
    x, y = values(1, 2**20) > 0, values(2, 2**20) > 0
    return lambda: torch.logical_and(x, y)


@case("masked_fill_int8_1m")
def masked_fill():
    x, mask = narrow(1), values(2, 2**20) > 0
    return lambda: x.masked_fill(mask, 7)


@case("cast_int8_1m")
def cast():
    x = values(1, 2**20) * 60
    return lambda: x.to(torch.int8)


@case("add_transposed_4096")
def add_transposed():
    x = values(1, 4096, 4096)
    return lambda: x + x.t()


@case("contiguous_transposed_4096")
def contiguous_transposed():
    x = values(1, 4096, 4096)
    return lambda: x.t().contiguous()
