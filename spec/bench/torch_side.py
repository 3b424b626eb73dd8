"""PyTorch's side of the benchmark, which answers as lua/nyx/bench/serve.lua does; "check NAME
FILE" compares with the results in FILE and answers with the greatest difference."""
import gc
import sys
import time

import torch

import cases

torch.set_num_threads(int(sys.argv[1]))
current = None  # the one case that is in memory: name, step, run


def drop():
    global current
    current = None
    gc.collect()


def prepare(name):
    global current
    if current and current[0] == name:
        return
    drop()
    made = cases.by_name[name]()
    step, run = made if isinstance(made, tuple) else (made, None)

    def loop(n):
        for _ in range(n):
            step()
    current = name, step, run or loop


def check(name, path, steps):
    drop()
    prepare(name)
    results = []
    for _ in range(steps):
        result = current[1]()
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            results.append(cases.sampled(tensor))
    if steps > 1:
        drop()  # it is not as it began
    with open(path, "rb") as file:
        theirs = torch.frombuffer(bytearray(file.read()), dtype=torch.float64)
    if len(theirs) != sum(len(r) for r in results):
        return f"ok inf {len(theirs)} numbers instead of {sum(len(r) for r in results)}"
    worst, where, begin = 0.0, "", 0
    for i, ours in enumerate(results):
        other = theirs[begin:begin + len(ours)]
        begin += len(ours)
        scale = ours[:-1].abs().max().item() if len(ours) > 1 else 0.0
        far = (other - ours).abs().max().item() / (scale or 1.0)
        far = far if far == far else float("inf")  # nan
        if far >= worst:
            worst, where = far, f"result {i + 1}"
    return f"ok {worst:.3g} {where}"


def timed(name, repeats, warm):
    prepare(name)
    run = current[2]
    if warm:
        run(1)
    start = time.perf_counter()
    run(repeats)
    return f"{(time.perf_counter() - start) / repeats:.9g}"


def answer(line):
    verb, *words = line.split()
    if verb == "check":
        return check(words[0], words[1], int(words[2]))
    if verb in ("time", "cold"):
        return timed(words[0], int(words[1]), verb == "time")
    drop()
    return "ok"


print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
for request in sys.stdin:
    try:
        print(answer(request), flush=True)
    except Exception as problem:  # whatever it is, the run goes on with the next case
        drop()
        print("error", type(problem).__name__, str(problem).split("\n")[0], flush=True)
