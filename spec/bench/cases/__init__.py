"""The cases of PyTorch, by the names and in the files of lua/nyx/bench/cases."""
from . import attention, conv, elementwise, factor, fourier, models, norm, optim, overhead, product  # noqa: F401
from . import reduce, sort  # noqa: F401
from .common import cases as by_name, sampled  # noqa: F401
