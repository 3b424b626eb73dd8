"""OpenBLAS's side of the benchmark, through ctypes: openblas.py LIBRARY PREFIX THREADS. It
answers "time REPEATS CALL" as onednn.c does, for products in float32 and float64. The kernels
are the library's choice or, where OPENBLAS_CORETYPE is set, that one."""
import array
import ctypes
import sys
import time

ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE = 101, 111, 112
library = ctypes.CDLL(sys.argv[1])
prefix, threads = sys.argv[2], int(sys.argv[3])


def symbol(name):
    return getattr(library, prefix + name)


symbol("openblas_set_num_threads")(threads)
for name in ("openblas_get_corename", "openblas_get_config"):
    symbol(name).restype = ctypes.c_char_p


def buffer(n, code):
    pattern = array.array(code, [(k % 7) - 3 for k in range(4096)])
    data = (pattern * (n // 4096 + 1))[:n]
    return data, data.buffer_info()[0]


def gemm(dtype, m, n, k, layout, batch=1):
    code = {"float32": "f", "float64": "d"}[dtype]
    real = ctypes.c_float if code == "f" else ctypes.c_double
    function = symbol("cblas_sgemm" if code == "f" else "cblas_dgemm")
    size = 4 if code == "f" else 8
    x, y, z = buffer(batch * m * k, code), buffer(batch * k * n, code), buffer(batch * m * n, code)
    ta, tb = layout[0] == "t", layout[1] == "t"
    integers = [ctypes.c_int(v) for v in (ROW_MAJOR, TRANSPOSE if ta else NO_TRANSPOSE,
                                          TRANSPOSE if tb else NO_TRANSPOSE, m, n, k)]
    calls = [(*integers, real(1), ctypes.c_void_p(x[1] + i * m * k * size), ctypes.c_int(m if ta else k),
              ctypes.c_void_p(y[1] + i * k * n * size), ctypes.c_int(k if tb else n), real(0),
              ctypes.c_void_p(z[1] + i * m * n * size), ctypes.c_int(n)) for i in range(batch)]
    function.restype = None

    def step(kept=(x, y, z)):
        for call in calls:
            function(*call)
    return step


def gemv(dtype, m, n, layout):
    """Of an m x n matrix, which lies transposed in layout t."""
    x, v, y = buffer(m * n, "f"), buffer(n, "f"), buffer(m, "f")
    function = symbol("cblas_sgemv")
    function.restype = None
    rows, columns, how = (n, m, TRANSPOSE) if layout == "t" else (m, n, NO_TRANSPOSE)
    call = [ctypes.c_int(i) for i in (ROW_MAJOR, how, rows, columns)]
    call += [ctypes.c_float(1), ctypes.c_void_p(x[1]), ctypes.c_int(columns), ctypes.c_void_p(v[1]), ctypes.c_int(1),
             ctypes.c_float(0), ctypes.c_void_p(y[1]), ctypes.c_int(1)]

    def step(kept=(x, v, y)):
        function(*call)
    return step


def prepare(call):
    kind, dtype, *rest = call.split()
    if dtype not in ("float32", "float64"):
        return None
    if kind == "gemm":
        return gemm(dtype, int(rest[0]), int(rest[1]), int(rest[2]), rest[3])
    if kind == "gemv":
        return gemv(dtype, int(rest[0]), int(rest[1]), rest[2])
    if kind == "bmm":
        return gemm(dtype, *(int(r) for r in rest[1:]), "nn", batch=int(rest[0]))
    return None


config = symbol("openblas_get_config")().decode().split()
print(f"OpenBLAS {config[1]}, {symbol('openblas_get_corename')().decode()} kernels, {threads} threads", flush=True)
current, step = None, None
for request in sys.stdin:
    verb, *words = request.split(maxsplit=2)
    if verb == "drop":
        current, step = None, None
        print("ok", flush=True)
        continue
    if words[1] != current:
        current, step = words[1], None
        step = prepare(words[1])
    if not step:
        print("none", flush=True)
        continue
    if verb == "time":
        step()
    start = time.perf_counter()
    for _ in range(int(words[0])):
        step()
    print(f"{(time.perf_counter() - start) / int(words[0]):.9g}", flush=True)
