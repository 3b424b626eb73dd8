"""See lua/nyx/bench/cases/attention.lua."""
import torch
from torch.nn.functional import scaled_dot_product_attention

from .common import case, values


def attention(length):
    def inputs():
        return [values(seed, 1, 12, length, 64) for seed in (1, 2, 3)]

    @case(f"attention_{length}")
    def forward():
        q, k, v = inputs()
        return lambda: scaled_dot_product_attention(q, k, v, is_causal=True)

    @case(f"attention_{length}_backward")
    def backward():
        leaves = [x.requires_grad_(True) for x in inputs()]
        g = values(4, 1, 12, length, 64)

        def step():
            for x in leaves:
                x.grad = None
            y = scaled_dot_product_attention(*leaves, is_causal=True)
            y.backward(g)
            return (y, *(x.grad for x in leaves))
        return step


attention(1024)
attention(4096)


@case("attention_dropout_1024_backward")
def dropout():
    q, k, v = leaves = [values(seed, 1, 12, 1024, 64).requires_grad_(True) for seed in (1, 2, 3)]
    g = values(4, 1, 12, 1024, 64)

    def step():
        for x in leaves:
            x.grad = None
        scaled_dot_product_attention(q, k, v, dropout_p=0.1).backward(g)
        return v.grad.sum(-2)
    return step


def decode(name, dtype):
    @case(name)
    def make():
        q, k, v = (values(seed, *shape).to(dtype)
                   for seed, shape in ((1, (1, 32, 1, 128)), (2, (1, 8, 4096, 128)), (3, (1, 8, 4096, 128))))
        return lambda: scaled_dot_product_attention(q, k, v, enable_gqa=True)


decode("decode_gqa_4096", torch.float32)
decode("decode_gqa_4096_bf16", torch.bfloat16)


@case("rotary")
def rotary():
    """Composed, with tables of full width that exist, as in most programs."""
    x = values(1, 1, 32, 1024, 128)
    speeds = 10000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    angles = (torch.arange(1024, dtype=torch.float64)[:, None] * speeds).repeat(1, 2)
    cos, sin = angles.cos().float(), angles.sin().float()

    def step():
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin
    return step
