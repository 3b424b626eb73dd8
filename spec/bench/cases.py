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


cases = {
    "add16": add(16),
    "add16_recording": add(16, requires_grad=True),
    "sgemm1024": sgemm1024,
    "add1m": add(1000000),
    "exp1m": unary(torch.exp, 1000000),
    "gelu1m": unary(torch.nn.functional.gelu, 1000000),
    "softmax": unary(lambda x: torch.softmax(x, 1), 4096, 1024),
    "digits_step": digits_step,
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
