"""Which dtype a result has: every pair of dtypes, tensors with dimensions, 0-d tensors and
numbers, for arithmetic, division and comparison; values too. Read next: table.py."""
import torch

from cases import FLOATS
from ops import check_exact, error_of, Mismatch
from worker import DTYPES, NAMES, NyxError

OPS = {
    "add": torch.add, "mul": torch.mul, "div": torch.div, "lt": torch.lt, "eq": torch.eq,
    "maximum": torch.maximum, "atan2": torch.atan2, "pow": torch.pow, "remainder": torch.remainder,
    "floor_divide": torch.floor_divide, "where": lambda x, y: torch.where(torch.tensor([True, False]), x, y),
    "cat": lambda x, y: torch.cat([x.reshape(-1), y.reshape(-1)]),
    "copy_": lambda x, y: x.clone().copy_(y / 2 if y.is_floating_point() else y),
}
LUA = {"where": "nyx.where(nyx.tensor{true,false}, %s, %s)",
       "cat": "nyx.cat({(%s):reshape(-1), (%s):reshape(-1)})",
       "copy_": "(function(x, y) return x:clone():copy_(y.dtype:find'float' and y / 2 or y) end)(%s, %s)"}
NUMBERS = {"2": 2, "2.5": 2.5, "true": True}
# torch refuses or does otherwise what Nyx does: op, what, reason.
DIFFERENT = [
    ("maximum", "number", "torch takes no numbers here"),
    ("atan2", "number", "torch takes no numbers here"),
    ("cat", "number", "a list of tensors"),
    ("copy_", "number", "torch takes no numbers here"),
    # Lua 5.1 and LuaJIT have one kind of number, so an exact one counts as an integer
]


def kinds(dtype):
    """A tensor with dimensions and a 0-d tensor of the dtype."""
    yield "tensor", torch.tensor([1, 2]).to(dtype)
    yield "0-d", torch.tensor(1).to(dtype)


def compare(tap, worker):
    for name, peer in OPS.items():
        failures, cases, refused = [], 0, 0
        text = LUA.get(name, f"nyx.{name}(%s, %s)")
        pairs = []
        for a in DTYPES.values():
            for kind_a, x in kinds(a):
                for b in DTYPES.values():
                    for kind_b, y in kinds(b):
                        pairs.append((f"{NAMES[a]} {kind_a}, {NAMES[b]} {kind_b}", x, y, [x, y], text % ("T[1]", "T[2]")))
                if any(d[0] == name and d[1] == "number" for d in DIFFERENT):
                    continue
                for lua, number in NUMBERS.items():
                    pairs.append((f"{NAMES[a]} {kind_a}, {lua}", x, number, [x], text % ("T[1]", lua)))
                    pairs.append((f"{lua}, {NAMES[a]} {kind_a}", number, x, [x], text % (lua, "T[1]")))
        for what, x, y, sent, lua in pairs:
            try:
                expected = peer(x, y)
            except (RuntimeError, TypeError, ZeroDivisionError):
                refused += 1
                continue
            cases += 1
            if expected.dtype == torch.int16:  # int8 with uint8: Nyx has no int16
                expected = expected.to(torch.int32)
            try:
                got = worker.run("return " + lua, sent)[0]
                if got.dtype != expected.dtype:
                    raise Mismatch(f"is {NAMES[got.dtype]}, expected {NAMES[expected.dtype]}")
                if got.dtype in FLOATS:
                    if error_of(got, expected, got.dtype, "value") > 1e-2:
                        raise Mismatch(f"is {got.tolist()}, expected {expected.tolist()}")
                else:
                    check_exact(got, expected, "value")
            except (NyxError, Mismatch) as e:
                failures.append(f"{name}({what}): {e}")
        tap.result(f"promotion of {name}: {cases} pairs, {refused} refused by torch", failures)
