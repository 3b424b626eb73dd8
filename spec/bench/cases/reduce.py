"""See lua/nyx/bench/cases/reduce.lua."""
import torch

from .common import case, values


def reduction(op, dim):
    @case(f"{op.__name__}_4096_dim{dim + 1}")
    def make():
        x = values(1, 4096, 4096)
        if op is not torch.argmax:
            return lambda: op(x, dim)

        def run(n):
            for _ in range(n):
                torch.argmax(x, dim)
        return lambda: x.gather(dim, torch.argmax(x, dim, keepdim=True)), run


for op in (torch.sum, torch.mean, torch.amax, torch.argmax, torch.var):
    for dim in (0, 1):
        reduction(op, dim)
