"""See lua/nyx/bench/cases/models.lua."""
import torch
from torch import nn
from torch.nn import functional as F

from .common import case, fill, integers, training, values


def perceptron(name, batch, *sizes):
    @case(name)
    def make():
        layers = []
        for i in range(len(sizes) - 1):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
        net = fill(nn.Sequential(*layers[:-1]))
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        return training(net, adam, values(1, batch, sizes[0]), integers(2, 0, 10, batch))


perceptron("digits_mlp_step", 64, 64, 64, 10)
perceptron("mnist_mlp_step", 128, 784, 256, 128, 10)


@case("mnist_conv_step")
def mnist_conv():
    net = fill(nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    return training(net, adam, values(1, 128, 1, 28, 28), integers(2, 0, 10, 128))


@case("mlp_784_512_512_10_backward")
def mlp_backward():
    net = fill(nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)))
    x, labels = values(1, 128, 784), integers(2, 0, 10, 128)

    def step():
        net.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        return loss, net[0].weight.grad
    return step


class SwiGLU(nn.Module):
    """In the order of nyx.nn.SwiGLU: values, gates."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(dim, 2 * hidden, bias=False), nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        up, gate = self.in_proj(x).chunk(2, -1)
        return self.out_proj(F.silu(gate) * up)


def swiglu(name, backward):
    @case(name)
    def make():
        net, x, g = fill(SwiGLU(1024, 2752)), values(1, 256, 1024), values(2, 256, 1024)
        if not backward:
            return torch.no_grad()(lambda: net(x))
        x.requires_grad_(True)

        def step():
            net.zero_grad()
            x.grad = None
            y = net(x)
            y.backward(g)
            return y, x.grad, net.in_proj.weight.grad
        return step


swiglu("swiglu_mlp", False)
swiglu("swiglu_mlp_backward", True)


@case("lstm_128_256")
def lstm():
    hidden, length, batch = 256, 64, 32
    net = nn.LSTM(128, hidden)
    with torch.no_grad():
        net.weight_ih_l0.copy_(values(1, 4 * hidden, 128) * 128 ** -0.5)
        net.weight_hh_l0.copy_(values(2, 4 * hidden, hidden) * hidden ** -0.5)
        net.bias_ih_l0.copy_(values(3, 4 * hidden) * 0.1)
        net.bias_hh_l0.copy_(values(4, 4 * hidden) * 0.1)
    x, g = values(5, length, batch, 128).requires_grad_(True), values(6, length, batch, hidden)

    def step():
        net.zero_grad()
        x.grad = None
        y = net(x)[0]
        y.backward(g)
        return y, net.weight_ih_l0.grad, net.weight_hh_l0.grad, net.bias_ih_l0.grad, x.grad
    return step


@case("lstm_packed")
def lstm_packed():
    net, x = fill(nn.LSTM(128, 256, bias=False)), values(1, 64, 32, 128)
    packed = nn.utils.rnn.pack_padded_sequence(x, list(range(64, 0, -2)))
    return torch.no_grad()(lambda: net(packed)[0].data)


@case("lstm_packed_backward")
def lstm_packed_backward():
    net, lengths = fill(nn.LSTM(128, 256, bias=False)), list(range(64, 0, -2))
    x, g = values(1, 64, 32, 128).requires_grad_(True), values(2, 1056, 256)

    def step():
        net.zero_grad()
        x.grad = None
        y = net(nn.utils.rnn.pack_padded_sequence(x, lengths))[0].data
        y.backward(g)
        return y, net.weight_ih_l0.grad, net.weight_hh_l0.grad, x.grad
    return step


@case("lstm_projected")
def lstm_projected():
    net, x = fill(nn.LSTM(128, 512, bias=False, proj_size=128)), values(1, 64, 32, 128)
    return torch.no_grad()(lambda: net(x)[0])


@case("lstm_projected_backward")
def lstm_projected_backward():
    net = fill(nn.LSTM(128, 512, bias=False, proj_size=128))
    x, g = values(1, 64, 32, 128).requires_grad_(True), values(2, 64, 32, 128)

    def step():
        net.zero_grad()
        x.grad = None
        y = net(x)[0]
        y.backward(g)
        return y, net.weight_ih_l0.grad, net.weight_hh_l0.grad, net.weight_hr_l0.grad, x.grad
    return step


LAYERS, WIDTH, HEADS, LENGTH, BATCH, VOCABULARY = 6, 384, 6, 256, 8, 65


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        qkv = self.qkv(self.norm1(x)).view(BATCH, LENGTH, 3, HEADS, WIDTH // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens):
        x = self.blocks(self.token(tokens) + self.position.weight)
        return self.head(self.norm(x)).view(BATCH * LENGTH, VOCABULARY)


@case("gpt_step")
def gpt():
    net = fill(GPT())
    adam = torch.optim.AdamW(net.parameters(), lr=1e-4)
    return training(net, adam, integers(1, 0, VOCABULARY, BATCH, LENGTH),
                    integers(2, 0, VOCABULARY, BATCH * LENGTH))


class Bottleneck(nn.Module):
    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * planes)
        self.shortcut = None
        if stride > 1 or inputs != 4 * planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, 4 * planes, 1, stride, bias=False),
                                          nn.BatchNorm2d(4 * planes))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return F.relu(y + (self.shortcut(x) if self.shortcut else x))


def fold(conv, norm):
    return torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)


def fused(features):
    """Batch norms in the convolutions before them."""
    features[0], features[1] = fold(features[0], features[1]), nn.Identity()
    for block in features:
        if not isinstance(block, Bottleneck):
            continue
        for i in "123":
            setattr(block, "conv" + i, fold(getattr(block, "conv" + i), getattr(block, "norm" + i)))
            setattr(block, "norm" + i, nn.Identity())
        if block.shortcut:
            block.shortcut = fold(*block.shortcut)
    return features


def resnet50(memory_format, fuse=lambda features: features):
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        planes = 64 * 2**stage
        for i in range(blocks):
            layers.append(Bottleneck(inputs, planes, 2 if stage > 0 and i == 0 else 1))
            inputs = 4 * planes
    features, classify = fill(nn.Sequential(*layers)).eval(), fill(nn.Linear(2048, 1000))
    features = fuse(features).to(memory_format=memory_format)
    x = values(1, 1, 3, 224, 224).contiguous(memory_format=memory_format)

    @torch.no_grad()
    def step():
        return classify(F.adaptive_avg_pool2d(features(x), 1).flatten(1))
    return step


@case("resnet50_inference")
@case("resnet50_prepacked")
def rows():
    return resnet50(torch.contiguous_format)


@case("resnet50_fused")
def folded():
    return resnet50(torch.contiguous_format, fused)


@case("resnet50_last_inference")
def channels_last():
    return resnet50(torch.channels_last)
