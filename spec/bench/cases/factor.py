"""See lua/nyx/bench/cases/factor.lua."""
import torch

from .common import case, values


def regular(shape):
    n = shape[-1]
    return values(1, *shape) * n**-0.5 + torch.eye(n) * 2


def definite(shape):
    x = regular(shape)
    return x @ x.mT


for shape in ((1024, 1024), (64, 64, 64), (1000, 16, 16)):
    size = "x".join(map(str, shape))

    @case("cholesky_" + size)
    def cholesky(shape=shape):
        x = definite(shape)
        return lambda: torch.linalg.cholesky(x)

    @case("lu_" + size)
    def lu(shape=shape):
        x = regular(shape)
        return lambda: torch.linalg.lu_factor(x)[0]

    @case("solve_" + size)
    def solve(shape=shape):
        x, y = regular(shape), values(2, *shape)
        return lambda: torch.linalg.solve(x, y)

    @case("qr_" + size)
    def qr(shape=shape):
        x = regular(shape)
        return lambda: torch.linalg.qr(x)
