"""Memory formats: values and strides of results and gradients, for tensors whose dimensions
lie in any order and for channels-last images. Read next: core/op/conv_last.c."""
import torch
import torch.nn.functional as F

from cases import Random
from worker import NyxError

BOUND = 1e-10

# Lua and the same in torch, of tensors of one shape in orders of their own.
ELEMENTWISE = [
    ("x:exp()", lambda x, y: x.exp()),
    ("x + y", lambda x, y: x + y),
    ("y * x", lambda x, y: y * x),
    ("2 - x", lambda x, y: 2 - x),
    ("x:gt(y)", lambda x, y: x.gt(y)),
    ("nyx.where(x:gt(0), x, y)", lambda x, y: torch.where(x.gt(0), x, y)),
    ("x:float()", lambda x, y: x.float()),
    ("x:clone()", lambda x, y: x.clone()),
    ("x:flip{ 1, -1 }", lambda x, y: x.flip(0, -1)),
]

# The same of channels-last images x and a weight w.
IMAGES = [
    ("x:conv2d(w, nil, { padding = 1 })", lambda x, w: F.conv2d(x, w, None, 1, 1)),
    ("x:conv2d(w, b, { stride = 2, padding = { 2, 1 }, dilation = { 2, 1 } })",
     lambda x, w, b: F.conv2d(x, w, b, 2, (2, 1), (2, 1))),
    ("x:relu():max_pool2d(3, { stride = 2, padding = 1 })",
     lambda x, w: F.max_pool2d(x.relu(), 3, 2, 1)),
    ("nyx.cat({ x, x * 2 }, 2)", lambda x, w: torch.cat([x, x * 2], 1)),
    ("nyx.cat({ x, x:contiguous() }, 3)", lambda x, w: torch.cat([x, x.contiguous()], 2)),
    ("nyx.ones_like(x) * x", lambda x, w: torch.ones_like(x) * x),
    ("x:avg_pool2d(2)", lambda x, w: F.avg_pool2d(x, 2)),
    ("x:pad({ 1, 2, 0, -1 }, { value = 2 })", lambda x, w: F.pad(x, (1, 2, 0, -1), value=2)),
    ("x:pad{ 1, 2, 3, 0, 1, 2 }", lambda x, w: F.pad(x, (1, 2, 3, 0, 1, 2))),
    ("x:pad({ 3, 1, 2, 4 }, { mode = 'reflect' })", lambda x, w: F.pad(x, (3, 1, 2, 4), "reflect")),
    ("x:pad({ 3, 1, 0, 7 }, { mode = 'replicate' })", lambda x, w: F.pad(x, (3, 1, 0, 7), "replicate")),
    # PyTorch gives rows here.
    ("x:pad({ 3, 1, 2, 4 }, { mode = 'circular' })",
     lambda x, w: F.pad(x, (3, 1, 2, 4), "circular").contiguous(memory_format=torch.channels_last)),
    ("x:flip{ 2, 3, 4 }", lambda x, w: x.flip(1, 2, 3)),
    ("x:roll({ 1, -2 }, { 2, 4 })", lambda x, w: x.roll((1, -2), (1, 3))),
    ("x:roll{ 5 }", lambda x, w: x.roll(5)),
    ("x:adaptive_avg_pool2d(2)", lambda x, w: F.adaptive_avg_pool2d(x, 2)),
    ("x:batch_norm(nil, nil, nil, nil, { training = true }) * 2",
     lambda x, w: F.batch_norm(x, None, None, training=True) * 2),
    ("x:group_norm { num_groups = 1 }:exp()", lambda x, w: F.group_norm(x, 1).exp()),
    ("(x:conv2d(w, nil, { padding = 1 }):batch_norm(nil, nil, nil, nil, { training = true }) + "
     "x:conv2d(w, nil, { padding = 1 })):relu()",
     lambda x, w: (F.batch_norm(F.conv2d(x, w, None, 1, 1), None, None, training=True)
                   + F.conv2d(x, w, None, 1, 1)).relu()),
]


# The same of a slice s of channels or places, and images m as many as it.
SLICES = [
    ("s:exp()", lambda s, m: s.exp()),
    ("s * m", lambda s, m: s * m),
    ("m * s", lambda s, m: m * s),
    ("nyx.where(s:gt(0), s, -m)", lambda s, m: torch.where(s.gt(0), s, -m)),
    ("s:clone()", lambda s, m: s.clone()),
    ("nyx.zeros_like(s) + s", lambda s, m: torch.zeros_like(s) + s),
    ("nyx.cat({ s, s * 2 }, 2)", lambda s, m: torch.cat([s, s * 2], 1)),
    ("nyx.cat({ s, m }, 2)", lambda s, m: torch.cat([s, m], 1)),
    ("s:pad({ 1, 1, 1, 0 }, { mode = 'reflect' })", lambda s, m: F.pad(s, (1, 1, 1, 0), "reflect")),
    ("s:flip{ 3 }", lambda s, m: s.flip(2)),
    ("s:roll({ 1 }, { 4 })", lambda s, m: s.roll(1, 3)),
    ("s:max_pool2d(2)", lambda s, m: F.max_pool2d(s, 2)),
    ("s:avg_pool2d(3, { stride = 1 })", lambda s, m: F.avg_pool2d(s, 3, 1)),
    ("s:batch_norm(nil, nil, nil, nil, { training = true })", lambda s, m: F.batch_norm(s, None, None, training=True)),
    ("s:group_norm { num_groups = 1 }", lambda s, m: F.group_norm(s, 1)),
    ("s:conv2d(nyx.ones(5, s.shape[2], 3, 3, { dtype = 'float64' }), nil, { padding = 1 })",
     lambda s, m: F.conv2d(s, torch.ones(5, s.shape[1], 3, 3, dtype=torch.float64), None, 1, 1)),
]


def different(got, expected, strides, what):
    if list(got.shape) != list(expected.shape):
        return f"{what} has shape {list(got.shape)}, expected {list(expected.shape)}"
    wanted = ",".join(map(str, expected.stride()))
    if strides != wanted:
        return f"{what} has strides {strides}, expected {wanted}"
    off = (got.double() - expected.detach().double()).abs().max().item()
    most = expected.detach().double().abs().max().item()
    return f"{what} is off by {off}" if off > BOUND * max(most, 1) else None


def run(worker, text, tensors, expected):
    """`text` sets `all`; every tensor of it is compared with its values and strides."""
    try:
        answer = worker.run(
            f"local x, y, w, b = T[1], T[2], T[2], T[3] local all = {{}} {text} "
            "local out = {} for i, t in ipairs(all) do "
            "out[2 * i - 1], out[2 * i] = t, table.concat(t:stride(), ',') end return out, 2 * #all", tensors)
    except NyxError as error:
        return str(error)
    if len(answer) != 2 * len(expected):
        return f"{len(answer)} values"
    names = ["the result", "the gradient of x", "the gradient of w"]
    found = (different(answer[2 * i], e, answer[2 * i + 1], names[i]) for i, e in enumerate(expected))
    return next(filter(None, found), None)


def in_some_order(r, shape):
    order = list(range(len(shape)))
    r.shuffle(order)
    memory = torch.randn([shape[d] for d in order], dtype=torch.float64)
    return memory.permute([order.index(d) for d in range(len(shape))])


def compare_elementwise(worker, r, text, fn):
    shape = [r.randint(2, 5) for _ in range(r.randint(2, 4))]
    x, y = in_some_order(r, shape), in_some_order(r, shape)
    dim = r.randrange(len(shape))
    if shape[dim] > 2 and r.chance(0.4):  # a slice of it, with gaps
        x, y = (t.narrow(dim, 0, shape[dim] - 1) for t in (x, y))
        shape[dim] -= 1
    # Where the first operand is repeated, PyTorch orders by what dimensions it has; Nyx by the
    # first operand of full shape (docs/decisions/015-channels-last.md).
    if r.chance(0.3) and not text.startswith("y"):
        y = torch.randn([n if r.chance(0.5) else 1 for n in shape], dtype=torch.float64)
    failure = run(worker, f"all[1] = {text}", [x, y], [fn(x, y)])
    return failure and f"{text} of {list(x.shape)}, {x.stride()} and {y.stride()}: {failure}"


def compare_images(worker, r, text, fn):
    """In float64, and with sizes that leave no doubt what the strides are."""
    c, o, size = r.randint(2, 9), r.randint(2, 40), [r.randint(5, 9), r.randint(5, 9)]
    x = torch.randn(2, c, *size, dtype=torch.float64)
    w, b = torch.randn(o, c, 3, 3, dtype=torch.float64), torch.randn(o, dtype=torch.float64)
    last = torch.channels_last
    x = x.contiguous(memory_format=last).requires_grad_()
    w = w.contiguous(memory_format=last if r.chance(0.7) else torch.contiguous_format).requires_grad_()
    y = fn(x, w, b) if "w, b" in text else fn(x, w)
    (y * y).sum().backward()
    leaves = [t for t in (x, w) if t.grad is not None]
    lua = "x.requires_grad, w.requires_grad = true, true "
    lua += f"local r = {text}; (r * r):sum():backward() all = {{ r:detach(), x.grad, w.grad }}"
    failure = run(worker, lua, [x.detach(), w.detach(), b], [y, *(t.grad for t in leaves)])
    return failure and f"{text} of {list(x.shape)}, weight {w.stride()}: {failure}"


def compare_slices(worker, r, text, fn):
    c, size = r.randint(4, 40), [r.randint(7, 9), r.randint(7, 9)]
    x = torch.randn(2, c, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    dim = r.choice([1, 1, 2, 3])
    count = r.randint(2, c - 1) if dim == 1 else 5
    start, step = r.randint(0, x.shape[dim] - count), 1
    if dim == 1 and r.chance(0.2):
        start, step, count = r.randint(0, 1), 2, (c - 1) // 2
    m = torch.randn(x.narrow(dim, 0, count).shape, dtype=torch.float64)
    if r.chance(0.5):
        m = m.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    index = [slice(None)] * dim + [slice(start, start + (count - 1) * step + 1, step)]
    s = x[tuple(index)]
    y = fn(s, m)
    (y * y).sum().backward()
    lua = f"local s = x:slice({dim + 1}, {start + 1}, {start + (count - 1) * step + 1}, {step}) local m = w "
    lua = f"x.requires_grad = true {lua} local r = {text}; (r * r):sum():backward() all = {{ r:detach(), x.grad }}"
    failure = run(worker, lua, [x.detach(), m], [y, x.grad])
    return failure and f"{text} of {list(s.shape)}, {s.stride()} and {m.stride()}: {failure}"


def compare(tap, worker, seed, count):
    torch.manual_seed(int(seed))
    for cases, check, what in ((ELEMENTWISE, compare_elementwise, "orders of dimensions"),
                               (IMAGES, compare_images, "channels-last"),
                               (SLICES, compare_slices, "slices of channels-last")):
        for text, fn in cases:
            r = Random(f"{seed} formats {text}")
            failures = [check(worker, r, text, fn) for _ in range(count)]
            tap.result(f"{what}: {text}: {count} cases", [f for f in failures if f])
