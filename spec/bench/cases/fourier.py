"""See lua/nyx/bench/cases/fourier.lua."""
import torch

from .common import case, values


def transform(name, function, *shape, real=False):
    @case(name)
    def make():
        x = values(1, *shape) if real else torch.complex(values(1, *shape), values(2, *shape))
        return lambda: torch.view_as_real(function(x))


transform("fft_256x1024", torch.fft.fft, 256, 1024)
transform("fft_1m", torch.fft.fft, 2**20)
transform("fft_16_of_10007", torch.fft.fft, 16, 10007)
transform("rfft_256x1024", torch.fft.rfft, 256, 1024, real=True)
transform("rfft_1m", torch.fft.rfft, 2**20, real=True)
transform("fft2_1024", torch.fft.fft2, 1024, 1024)
transform("fftn_64", torch.fft.fftn, 64, 64, 64)
