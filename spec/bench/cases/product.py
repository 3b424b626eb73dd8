"""See lua/nyx/bench/cases/product.lua."""
import torch

from .common import case, integers, values


def gemm(name, m, n, k, layout="nn", dtype=torch.float32, out=False):
    @case(name)
    def make():
        x = values(1, k, m).to(dtype).t() if layout[0] == "t" else values(1, m, k).to(dtype)
        y = values(2, n, k).to(dtype).t() if layout[1] == "t" else values(2, k, n).to(dtype)
        if not out:
            return lambda: x @ y
        into = torch.empty(m, n, dtype=dtype)
        return lambda: torch.matmul(x, y, out=into)


for size in (512, 1024, 2048, 4096):
    for layout in ("nn", "nt", "tn", "tt"):
        gemm(f"sgemm_{size}_{layout}", size, size, size, layout)
gemm("sgemm_1024_nn_out", 1024, 1024, 1024, out=True)
for size in (8, 16, 32, 64, 128):
    gemm(f"sgemm_{size}", size, size, size)
gemm("sgemm_64x784x128", 64, 128, 784)
gemm("sgemm_16384x64x64", 16384, 64, 64, "nt")
gemm("sgemm_64x16384x64", 64, 64, 16384, "tn")
gemm("dgemm_1024", 1024, 1024, 1024, dtype=torch.float64)
gemm("bf16_1024", 1024, 1024, 1024, dtype=torch.bfloat16)


def int8(size):
    @case(f"int8_{size}")
    def make():
        x = integers(1, -128, 128, size, size).to(torch.int8)
        y = integers(2, -128, 128, size, size).to(torch.int8)
        return lambda: torch._int_mm(x, y)


int8(1024)
int8(4096)


@case("gemv_4096")
def gemv():
    x, v = values(1, 4096, 4096), values(2, 4096)
    return lambda: x @ v


@case("gemv_4096_t")
def gemv_t():
    x, v = values(1, 4096, 4096).t(), values(2, 4096)
    return lambda: x @ v


def bmm(b, m, k, n):
    @case(f"bmm_{b}_of_{m}x{k}x{n}")
    def make():
        x, y = values(1, b, m, k), values(2, b, k, n)
        return lambda: x @ y


bmm(96, 64, 64, 64)
bmm(12, 1024, 64, 1024)


def linear_row(kind):
    @case(f"linear_row_4096_{kind}")
    def make():
        x = values(1, 1, 4096)
        if kind == "float32":
            w = values(2, 4096, 4096)
            return lambda: torch.nn.functional.linear(x, w)
        x = x.bfloat16()
        if kind == "bfloat16":
            w = values(2, 4096, 4096).bfloat16()
            return lambda: torch.nn.functional.linear(x, w)
        if kind == "int8":
            q, scales = integers(2, -128, 128, 4096, 4096).to(torch.int8), values(3, 4096).bfloat16()
            return lambda: torch._weight_int8pack_mm(x, q, scales)
        q = integers(2, 0, 256, 4096, 2048)
        q = torch.stack([q & 15, q >> 4], -1).flatten(1).int()
        scales = values(3, 4096, 32).bfloat16().t()
        scales = torch.stack([scales, torch.zeros_like(scales)], -1).contiguous()
        packed = torch._convert_weight_to_int4pack_for_cpu(q, 1)
        return lambda: torch._weight_int4pack_mm_for_cpu(x, packed, 128, scales)


for kind in ("float32", "bfloat16", "int8", "int4"):
    linear_row(kind)


def linear_rows(rows):
    @case(f"linear_{rows}_rows_4096_prepacked")
    @case(f"linear_{rows}_rows_4096")
    def make():
        x, w = values(1, rows, 4096), values(2, 4096, 4096)
        return lambda: torch.nn.functional.linear(x, w)


for rows in (4, 16, 64):
    linear_rows(rows)
