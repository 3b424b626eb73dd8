"""See lua/nyx/bench/cases/conv.lua."""
import torch
from torch.nn.functional import conv2d

from .common import case, values

# Input channels, output channels, height and width, kernel, stride.
RESNET = [
    (3, 64, 224, 7, 2),
    (64, 64, 56, 1, 1), (64, 64, 56, 3, 1), (64, 256, 56, 1, 1), (256, 64, 56, 1, 1),
    (256, 128, 56, 1, 1), (128, 128, 56, 3, 2), (128, 512, 28, 1, 1), (256, 512, 56, 1, 2),
    (512, 128, 28, 1, 1), (128, 128, 28, 3, 1),
    (512, 256, 28, 1, 1), (256, 256, 28, 3, 2), (256, 1024, 14, 1, 1), (512, 1024, 28, 1, 2),
    (1024, 256, 14, 1, 1), (256, 256, 14, 3, 1),
    (1024, 512, 14, 1, 1), (512, 512, 14, 3, 2), (512, 2048, 7, 1, 1), (1024, 2048, 14, 1, 2),
    (2048, 512, 7, 1, 1), (512, 512, 7, 3, 1),
]
# Channels, height and width, stride.
MOBILENET = [
    (32, 112, 1), (96, 112, 2), (144, 56, 1), (144, 56, 2), (192, 28, 1), (192, 28, 2),
    (384, 14, 1), (576, 14, 1), (576, 14, 2), (960, 7, 1),
]
# Batch, input channels, output channels, groups, height, width, kernel's height and width.
LARGE = [
    ("large_k5_64", 16, 64, 64, 1, 32, 32, 5, 5), ("large_k11_16", 1, 16, 16, 1, 128, 128, 11, 11),
    ("large_k13_depthwise", 16, 128, 128, 128, 32, 32, 13, 13),
    ("large_k31_depthwise", 1, 96, 96, 96, 56, 56, 31, 31),
    ("large_k31_image", 1, 1, 1, 1, 512, 512, 31, 31),
    ("large_line_256", 1, 64, 64, 1, 1, 2000, 1, 256),
    ("large_line_512_depthwise", 4, 64, 64, 64, 1, 4000, 1, 512),
]


def add_ways(name, tensors, stride, padding, groups):
    @case(f"{name}_forward")
    def forward():
        x, w = tensors()
        return lambda: conv2d(x, w, None, stride, padding, 1, groups)

    @case(f"{name}_backward")
    def backward():
        x, w = (t.requires_grad_(True) for t in tensors())
        y = conv2d(x, w, None, stride, padding, 1, groups)
        g = values(3, *y.shape)
        return lambda: torch.autograd.grad(y, (x, w), g, retain_graph=True)


def add_large(name, batch, inputs, outputs, groups, height, width, kh, kw):
    def tensors():
        return values(1, batch, inputs, height, width), values(2, outputs, inputs // groups, kh, kw)

    add_ways(name, tensors, 1, (kh // 2, kw // 2), groups)


def add(name, batch, inputs, outputs, size, kernel, stride, groups):
    def tensors():
        return values(1, batch, inputs, size, size), values(2, outputs, inputs // groups, kernel, kernel)

    add_ways(name, tensors, stride, kernel // 2, groups)

    @case(f"last_{name}_forward")
    def last():
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in tensors())
        return lambda: conv2d(x, w, None, stride, kernel // 2, 1, groups)


for batch in (1, 16):
    for i, o, size, kernel, stride in RESNET:
        add(f"conv_b{batch}_{i}to{o}_{size}_k{kernel}" + (f"_s{stride}" if stride > 1 else ""),
            batch, i, o, size, kernel, stride, 1)
for channels, size, stride in MOBILENET:
    add(f"depthwise_{channels}_{size}" + (f"_s{stride}" if stride > 1 else ""),
        1, channels, channels, size, 3, stride, channels)
for shape in LARGE:
    add_large(*shape)
