"""Random inputs: shapes, values and strides, from a seed, the op's name and the number of
the case, so that any single case can be replayed."""
import random
import torch

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTS = (torch.int64, torch.int32, torch.int8, torch.uint8)


class Random(random.Random):
    def __init__(self, *key):
        super().__init__("/".join(map(str, key)))
        self.generator = torch.Generator().manual_seed(self.getrandbits(48))

    def chance(self, p):
        return self.random() < p

    def shape(self, low=0, high=4, size=5, empty=0.04):
        """A shape of low to high dimensions."""
        ndim = self.randint(low, high)
        return [0 if self.chance(empty) else self.randint(1, size) for _ in range(ndim)]

    def values(self, count, dtype, lo, hi):
        if dtype == torch.bool:
            return torch.randint(0, 2, (count,), generator=self.generator).bool()
        if dtype in INTS:
            lo = max(lo, 0) if dtype == torch.uint8 else lo
            lo, hi = int(-(-lo // 1)), int(hi // 1)
            return torch.randint(lo, max(hi, lo) + 1, (count,), generator=self.generator).to(dtype)
        x = torch.rand(count, dtype=torch.float64, generator=self.generator)
        return (lo + (hi - lo) * x).to(dtype)

    def tensor(self, shape, dtype=torch.float64, lo=-2, hi=2, repeats=True, plain=False):
        """A tensor in some layout: contiguous, dimensions in another order in memory, with
        gaps, with an offset, or (where `repeats`) with a dimension of stride 0."""
        shape = list(shape)
        ndim = len(shape)
        if plain or ndim == 0 or 0 in shape or self.chance(0.3):
            count = 1
            for n in shape:
                count *= n
            return self.values(count, dtype, lo, hi).reshape(shape)
        order = list(range(ndim))
        if self.chance(0.7):
            self.shuffle(order)
        stride, step = [0] * ndim, 1
        for d in order:
            if repeats and self.chance(0.1):
                continue  # stride 0
            step *= self.choice([1, 1, 1, 2, 3])
            stride[d] = step
            step *= shape[d]
        offset = self.choice([0, 0, 1, 5])
        reach = offset + 1 + sum((n - 1) * s for n, s in zip(shape, stride))
        memory = self.values(reach, dtype, lo, hi)
        return memory.as_strided(shape, stride, offset)

    def distinct(self, shape, dtype=torch.float64, lo=-2, hi=2):
        """No two elements are equal, as far as the dtype allows."""
        count = 1
        for n in shape:
            count *= n
        if dtype in FLOATS:
            steps = torch.randperm(count, generator=self.generator).double()
            x = (lo + (hi - lo) * (steps + 0.5) / max(count, 1)).to(dtype)
        elif count <= hi - lo + 1:
            x = (torch.randperm(hi - lo + 1, generator=self.generator)[:count] + lo).to(dtype)
        else:
            x = self.values(count, dtype, lo, hi)
        x = x.reshape(shape)
        if x.ndim > 1 and self.chance(0.5):
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        return x

    def positions(self, shape, size, negative=False):
        """Positions 0..size-1, or also from the end."""
        return torch.randint(-size if negative else 0, size, list(shape), generator=self.generator)

    def mask(self, shape):
        return self.tensor(shape, torch.bool)

    def dim(self, ndim):
        """A dimension, counted from either end."""
        return self.randrange(-ndim, ndim) if ndim else 0

    def dims(self, ndim, low=1):
        """Some different dimensions."""
        chosen = self.sample(range(ndim), self.randint(min(low, ndim), ndim))
        return [d - ndim if self.chance(0.3) else d for d in chosen]

    def broadcast(self, n, high=4):
        """n shapes that broadcast together."""
        full = self.shape(0, high)
        if full and self.chance(0.1):  # long enough for every tail of a vector loop
            full[self.randrange(len(full))] = self.randint(15, 150)
        shapes = []
        for _ in range(n):
            own = [1 if self.chance(0.2) else size for size in full]
            shapes.append(own[self.randint(0, len(own)):] if self.chance(0.3) else own)
        return shapes


class Case:
    """One call of an op. Positions, dimensions and labels count from 0 here."""

    def __init__(self, inputs, attrs=None, peer=None, leaves=None, positions=(), order=2):
        self.inputs = inputs  # tensors and None
        self.attrs = attrs or {}  # what Nyx gets
        self.peer = peer  # peer(*inputs, **attrs) instead of the table's function
        self.leaves = leaves  # which inputs get gradients; by default all floats
        self.positions = set(positions)  # which inputs hold positions
        self.order = order  # of derivatives
