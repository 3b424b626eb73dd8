"""PyTorch's side of the benchmark: see cases.lua, which has the same cases."""
import sys
import time

import torch
import torch.nn as nn

torch.set_num_threads(int(sys.argv[1]))


def add(size, requires_grad=False):
    def make():
        x, y = torch.randn(size, requires_grad=requires_grad), torch.randn(size)
        def run(n):
            for _ in range(n):
                x + y
        return run
    return make


def sgemm1024():
    x, y = torch.randn(1024, 1024), torch.randn(1024, 1024)
    def run(n):
        for _ in range(n):
            x @ y
    return run


def unary(function, *shape):
    def make():
        x = torch.randn(*shape)
        def run(n):
            for _ in range(n):
                function(x)
        return run
    return make


def digits_step():
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, labels = torch.rand(64, 64), torch.randint(0, 10, (64,))
    loss_of = nn.CrossEntropyLoss()
    def run(n):
        for _ in range(n):
            adam.zero_grad()
            loss = loss_of(net(x), labels)
            loss.backward()
            adam.step()
    return run


def chain(size):
    def make():
        x = torch.randn(size, requires_grad=True)
        def run(n):
            for _ in range(n):
                x.grad = None
                y = torch.log1p((((x * 2).tanh() + 1).square().sigmoid() * x).exp()) - 0.5
                nn.functional.gelu(y).sum().backward()
        return run
    return make


def mlp_backward():
    net = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    x, labels = torch.rand(128, 784), torch.randint(0, 10, (128,))
    def run(n):
        for _ in range(n):
            net.zero_grad()
            nn.functional.cross_entropy(net(x), labels).backward()
    return run


def two_layers():
    p = [torch.randn(64, 32) * 0.1, torch.zeros(64), torch.randn(10, 64) * 0.1, torch.zeros(10)]
    def loss(q, x, y):
        out = nn.functional.linear(nn.functional.linear(x, q[0], q[1]).tanh(), q[2], q[3])
        return (out - y).square().mean()
    return p, loss, torch.randn(64, 32), torch.randn(64, 10)


def per_sample_gradients():
    p, loss, x, y = two_layers()
    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))
    def run(n):
        for _ in range(n):
            gradients(p, x, y)
    return run


def hvp():
    p, loss, x, y = two_layers()
    v = [torch.randn_like(w) for w in p]
    def run(n):
        for _ in range(n):
            torch.func.jvp(torch.func.grad_and_value(lambda q: loss(q, x, y)), (p,), (v,))
    return run


cases = {
    "add16": add(16),
    "add16_recording": add(16, requires_grad=True),
    "sgemm1024": sgemm1024,
    "add1m": add(1000000),
    "exp1m": unary(torch.exp, 1000000),
    "gelu1m": unary(torch.nn.functional.gelu, 1000000),
    "softmax": unary(lambda x: torch.softmax(x, 1), 4096, 1024),
    "digits_step": digits_step,
    "chain1k_backward": chain(1000),
    "chain1m_backward": chain(1000000),
    "mlp_backward": mlp_backward,
    "per_sample_gradients": per_sample_gradients,
    "hvp": hvp,
}

print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
ready = {}
for line in sys.stdin:
    name, repeats = line.split()
    if name not in cases:
        print("none", flush=True)
        continue
    if name not in ready:
        ready[name] = cases[name]()
    ready[name](1)  # caches are warm again
    start = time.perf_counter()
    ready[name](int(repeats))
    print(f"{(time.perf_counter() - start) / int(repeats):.9g}", flush=True)
