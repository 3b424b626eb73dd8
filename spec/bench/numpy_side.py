"""NumPy's side of the benchmark: the cases that its users would run on it, answered as
torch_side.py does, without comparing."""
import sys
import time

import numpy as np

MILLION = 2**20
draw = np.random.default_rng(0)


def floats(*shape):
    return draw.random(shape, dtype=np.float32) * 3.5 - 1.75


def ops():
    cases = {}
    for size, n in (("1m", MILLION), ("16m", 16 * MILLION)):
        for name, op in (("add", np.add), ("mul", np.multiply)):
            cases[f"{name}_{size}"] = lambda op=op, n=n: (op, floats(n), floats(n))
            cases[f"{name}_{size}_out"] = lambda op=op, n=n: (op, floats(n), floats(n), floats(n))
        for name, op in (("exp", np.exp), ("tanh", np.tanh)):
            cases[f"{name}_{size}"] = lambda op=op, n=n: (op, floats(n))
            cases[f"{name}_{size}_out"] = lambda op=op, n=n: (op, floats(n), floats(n))
    for name, op in (("sum", np.sum), ("mean", np.mean), ("amax", np.max), ("argmax", np.argmax), ("var", np.var)):
        for axis in (0, 1):
            cases[f"{name}_4096_dim{axis + 1}"] = lambda op=op, axis=axis: (op, floats(4096, 4096), axis)
    cases["add_transposed_4096"] = lambda: (lambda x: x + x.T, floats(4096, 4096))
    cases["contiguous_transposed_4096"] = lambda: (lambda x: np.ascontiguousarray(x.T), floats(4096, 4096))
    cases["sort_1m"] = lambda: (np.sort, floats(MILLION))
    cases["sort_4096x1024"] = lambda: (np.sort, floats(4096, 1024))
    cases["topk_1m"] = lambda: (lambda x: np.sort(np.partition(x, -10)[-10:]), floats(MILLION))
    cases["topk_4096x1024"] = lambda: (lambda x: np.sort(np.partition(x, -10)[:, -10:]), floats(4096, 1024))
    cases["cumsum_1m"] = lambda: (np.cumsum, floats(MILLION))
    cases["unique_1m"] = lambda: (np.unique, draw.integers(0, 100000, MILLION))
    cases["gather_1m"] = lambda: (np.take, floats(MILLION), draw.integers(0, MILLION, MILLION))
    cases["index_select_4096x1024"] = lambda: (
        lambda x, i: np.take(x, i, 0), floats(4096, 1024), draw.integers(0, 4096, 4096))
    cases["add_16"] = lambda: (np.add, floats(16), floats(16))
    return cases


cases, current = ops(), None
print("numpy", np.__version__, flush=True)
for request in sys.stdin:
    verb, *words = request.split()
    if verb == "drop":
        current = None
        print("ok", flush=True)
    elif verb not in ("time", "cold") or words[0] not in cases:
        print("none", flush=True)
    else:
        if not current or current[0] != words[0]:
            current = words[0], cases[words[0]]()
        function, *arguments = current[1]
        if verb == "time":
            function(*arguments)
        start = time.perf_counter()
        for _ in range(int(words[1])):
            function(*arguments)
        print(f"{(time.perf_counter() - start) / int(words[1]):.9g}", flush=True)
