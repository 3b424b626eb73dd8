"""See lua/nyx/bench/cases/norm.lua."""
import torch
from torch.nn import functional as F

from .common import case, integers, values


def both_ways(f, shape, x, *parameters):
    g = values(2, *shape)
    if x.ndim == 4 and not x.is_contiguous():
        g = g.contiguous(memory_format=torch.channels_last)
    leaves = (x, *parameters)
    for leaf in leaves:
        leaf.requires_grad_(True)

    def step():
        for leaf in leaves:
            leaf.grad = None
        y = f(x)
        y.backward(g)
        return (y, *(leaf.grad for leaf in leaves))
    return step


def rows(height, width):
    size, shape = f"{height}x{width}", (height, width)

    @case(f"softmax_forward_{size}")
    def softmax_forward():
        x = values(1, *shape)
        return lambda: torch.softmax(x, 1)

    @case(f"softmax_{size}")
    def softmax():
        return both_ways(lambda x: torch.softmax(x, 1), shape, values(1, *shape))

    @case(f"layer_norm_{size}")
    def layer_norm():
        weight, bias = values(3, width), values(4, width)
        return both_ways(lambda x: F.layer_norm(x, (width,), weight, bias), shape, values(1, *shape), weight, bias)

    @case(f"rms_norm_{size}")
    def rms_norm():
        weight = values(3, width)
        return both_ways(lambda x: F.rms_norm(x, (width,), weight, eps=1e-5), shape, values(1, *shape), weight)

    @case(f"cross_entropy_{size}")
    def cross_entropy():
        x = values(1, *shape).requires_grad_(True)
        labels = integers(2, 0, width, height)

        def step():
            x.grad = None
            loss = F.cross_entropy(x, labels)
            loss.backward()
            return loss, x.grad
        return step


rows(4096, 1024)
rows(512, 32768)


def images(name, memory_format, *shape):
    @case(f"{name}_{'x'.join(map(str, shape))}")
    def group_norm():
        weight, bias = values(3, shape[1]), values(4, shape[1])
        x = values(1, *shape).contiguous(memory_format=memory_format)
        return both_ways(lambda x: F.group_norm(x, 32, weight, bias), shape, x, weight, bias)


for sizes in ((16, 256, 32, 32), (64, 256, 4, 4)):
    images("group_norm", torch.contiguous_format, *sizes)
    images("last_group_norm", torch.channels_last, *sizes)
