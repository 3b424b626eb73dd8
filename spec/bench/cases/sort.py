"""See lua/nyx/bench/cases/sort.lua."""
import torch

from .common import case, integers, values

MILLION = 2**20


@case("sort_1m")
def sort():
    x = values(1, MILLION)
    return lambda: torch.sort(x)[0]


@case("sort_4096x1024")
def sort_rows():
    x = values(1, 4096, 1024)
    return lambda: torch.sort(x, 1)[0]


@case("topk_1m")
def topk():
    x = values(1, MILLION)
    return lambda: torch.topk(x, 10)[0]


@case("topk_4096x1024")
def topk_rows():
    x = values(1, 4096, 1024)
    return lambda: torch.topk(x, 10, 1)[0]


@case("prefilter_256kx128")
def prefilter():
    x, queries = values(1, MILLION // 4, 128), values(2, 16, 128)
    return lambda: torch.topk(queries @ x.T, 10, 1)[0]


@case("take_1m")
def take():
    x, index = values(1, MILLION), integers(2, 0, MILLION, MILLION)
    return lambda: x.take(index)


@case("nonzero_1m")
def nonzero():
    mask = values(1, MILLION) > 0
    return lambda: mask.nonzero() - 0


@case("histc_1m")
def histc():
    x = values(1, MILLION)
    return lambda: torch.histc(x, 100, -1, 1)


@case("cdist_1024x3")
def cdist():
    x, y = values(1, 1024, 3), values(2, 1024, 3)
    return lambda: torch.cdist(x, y)


@case("cumsum_1m")
def cumsum():
    x = values(1, MILLION)
    return lambda: torch.cumsum(x, 0)


@case("unique_1m")
def unique():
    x = integers(1, 0, 100000, MILLION)
    return lambda: torch.unique(x)


@case("gather_1m")
def gather():
    x, index = values(1, MILLION), integers(2, 0, MILLION, MILLION)
    return lambda: torch.gather(x, 0, index)


@case("index_select_4096x1024")
def index_select():
    x, index = values(1, 4096, 1024), integers(2, 0, 4096, 4096)
    return lambda: torch.index_select(x, 0, index)


@case("index_add_4096x1024")
def index_add():
    x, source = values(1, 4096, 1024), values(3, 4096, 1024)
    index = integers(2, 0, 4096, 4096)
    return lambda: torch.index_add(x, 0, index, source)


@case("embedding_gradient")
def embedding_gradient():
    weight = values(1, 50000, 512).requires_grad_(True)
    index, g = integers(2, 0, 50000, 8192), values(3, 8192, 512)

    def step():
        weight.grad = None
        torch.nn.functional.embedding(index, weight).backward(g)
        return weight.grad
    return step
