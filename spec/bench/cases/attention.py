"""See lua/nyx/bench/cases/attention.lua."""
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
