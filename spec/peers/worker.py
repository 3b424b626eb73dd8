"""The other end of worker.lua: sends tensors and Lua to a Nyx process, gets tensors back.
Tensors are torch's on this side; their strides arrive in Nyx as they are here."""
import subprocess

import torch

DTYPES = {
    "float64": torch.float64, "float32": torch.float32, "float16": torch.float16,
    "bfloat16": torch.bfloat16, "int64": torch.int64, "int32": torch.int32,
    "int8": torch.int8, "uint8": torch.uint8, "bool": torch.bool,
}
COMPLEX = {"complex64": torch.complex64, "complex128": torch.complex128}
NAMED = {**DTYPES, **COMPLEX}
NAMES = {dtype: name for name, dtype in NAMED.items()}


class NyxError(Exception):
    """What Nyx raised."""


def bytes_of(tensor):
    row = tensor.detach().contiguous().as_strided((tensor.numel(),), (1,))
    return row.view(torch.uint8).numpy().tobytes()


def tensor_of(text, dtype, shape):
    if not text:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(bytearray(text), dtype=dtype).reshape(shape)


def packed(tensor):
    """A tensor as a request has it: head and bytes."""
    name = NAMES[tensor.dtype]
    if tensor.is_contiguous():
        head = " ".join(["t", name, "0", *map(str, tensor.shape)])
        return head.encode() + b"\n" + (bytes_of(tensor) if tensor.numel() else b"")
    # What the strides reach, beginning with the offset.
    reach = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()))
    offset = min(tensor.storage_offset(), 3)
    memory = torch.as_strided(tensor.detach(), (reach + offset,), (1,), tensor.storage_offset() - offset)
    head = " ".join(map(str, ["t", name, 1, reach + offset, offset, *tensor.shape, *tensor.stride()]))
    return head.encode() + b"\n" + bytes_of(memory)


class Worker:
    def __init__(self, nyx, script):
        self.process = subprocess.Popen([nyx, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.requests = 0

    def run(self, lua, tensors=()):
        """The values that `lua` returns, given the tensors as T."""
        self.requests += 1
        text = lua.encode()
        pipe = self.process.stdin
        pipe.write(b"%d %d\n" % (len(tensors), len(text)))
        for tensor in tensors:
            pipe.write(packed(tensor))
        pipe.write(text)
        pipe.flush()
        return self.answer()

    def answer(self):
        pipe = self.process.stdout
        line = pipe.readline().split()
        if not line:
            raise RuntimeError(f"nyx ended with status {self.process.wait()}")
        if line[0] == b"error":
            raise NyxError(pipe.read(int(line[1])).decode(errors="replace"))
        values = []
        for _ in range(int(line[1])):
            head = pipe.readline().split()
            if head[0] == b"n":
                values.append(None)
            elif head[0] == b"s":
                values.append(pipe.read(int(head[1])).decode(errors="replace"))
            else:
                dtype, shape = NAMED[head[1].decode()], [int(n) for n in head[3:]]
                count = 1
                for n in shape:
                    count *= n
                values.append(tensor_of(pipe.read(count * dtype.itemsize), dtype, shape))
        return values

    def close(self):
        self.process.stdin.close()
        return self.process.wait()
