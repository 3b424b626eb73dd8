"""What PyTorch's cases are made of: the counterpart of lua/nyx/bench/case.lua."""
import torch

cases = {}


def case(name):
    """Adds a case: a function that gives step(), one repeat, or step and run(n)."""
    def add(make):
        assert name not in cases, name
        cases[name] = make
        return make
    return add


def bits(seed, *shape):
    n = 1
    for size in shape:
        n *= size
    mask = 4294967295
    h = torch.arange(n)
    h.mul_(2654435761).add_(seed * 40503).bitwise_and_(mask)
    for _ in range(2):
        h.bitwise_xor_(h >> 16).mul_(73244475).bitwise_and_(mask)
    return h.bitwise_xor_(h >> 16).reshape(shape)


def values(seed, *shape):
    return (bits(seed, *shape) >> 8).float().mul_(2 / 16777216).sub_(1).mul_(1.75)


def integers(seed, low, high, *shape):
    return bits(seed, *shape).remainder_(high - low).add_(low)


@torch.no_grad()
def fill(model):
    for seed, (name, parameter) in enumerate(model.named_parameters(), 101):
        if parameter.dim() > 1:
            fan_in = parameter.numel() / parameter.shape[0]
            parameter.copy_(values(seed, *parameter.shape) * fan_in ** -0.5)
        elif name.endswith("bias"):
            parameter.zero_()
    return model


def training(model, optimizer, x, labels):
    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss
    return step


def sampled(tensor):
    """A result as float64, at most 2^20 of its elements, and the mean of their magnitudes."""
    flat = tensor.detach().flatten()
    n = flat.numel()
    step = n // 2**20 + 1 if n > 2**20 else 1
    flat = flat[::step + 1 if step % 2 == 0 else step].double()
    return torch.cat([flat, flat.abs().mean().reshape(1) if n else flat.new_zeros(1)])
