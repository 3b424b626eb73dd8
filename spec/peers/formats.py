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
    ("x:adaptive_avg_pool2d(2)", lambda x, w: F.adaptive_avg_pool2d(x, 2)),
    ("x:batch_norm(nil, nil, nil, nil, { training = true }) * 2",
     lambda x, w: F.batch_norm(x, None, None, training=True) * 2),
    ("x:group_norm { num_groups = 1 }:exp()", lambda x, w: F.group_norm(x, 1).exp()),
    ("(x:conv2d(w, nil, { padding = 1 }):batch_norm(nil, nil, nil, nil, { training = true }) + "
     "x:conv2d(w, nil, { padding = 1 })):relu()",
     lambda x, w: (F.batch_norm(F.conv2d(x, w, None, 1, 1), None, None, training=True)
                   + F.conv2d(x, w, None, 1, 1)).relu()),
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


def compare(tap, worker, seed, count):
    torch.manual_seed(int(seed))
    for cases, check, what in ((ELEMENTWISE, compare_elementwise, "orders of dimensions"),
                               (IMAGES, compare_images, "channels-last")):
        for text, fn in cases:
            r = Random(f"{seed} formats {text}")
            failures = [check(worker, r, text, fn) for _ in range(count)]
            tap.result(f"{what}: {text}: {count} cases", [f for f in failures if f])
