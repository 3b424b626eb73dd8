"""See lua/nyx/bench/cases/optim.lua."""
import torch

from .common import case, values


def adamw(name, clip=None, **options):
    @case(name)
    def make():
        params = [values(i, 1000, 1000).requires_grad_(True) for i in range(1, 11)]
        for i, p in enumerate(params, 11):
            p.grad = values(i, 1000, 1000)
        optimizer = torch.optim.AdamW(params, lr=1e-3, **options)

        def step():
            if clip:
                torch.nn.utils.clip_grad_norm_(params, clip)
            optimizer.step()
            return params[0], params[9]
        return step


adamw("adamw_10m", fused=True)
adamw("adamw_clip_10m", clip=1.0, fused=True)
