"""Files both ways: what nyx.save writes opens in Python's safetensors, and what that writes
loads with nyx.load, with equal tensors of every dtype and shape; the same for NumPy's .npy and
.npz. Read next: lua/nyx/io."""
import os
import tempfile

import numpy
import torch

from cases import Random
from worker import DTYPES

try:
    from safetensors.torch import load_file, save_file
except ImportError:
    load_file = None


def tensors_of(r):
    shapes = [[], [0], [3], [2, 0, 3], [4, 5], [2, 3, 2]]
    out = {}
    for name, dtype in DTYPES.items():
        for i in range(2):
            out[f"{name}.{i}"] = r.tensor(r.choice(shapes), dtype, 0, 100)
    out["strange name: \"ä\" \\ /"] = r.tensor([2])
    out["nan"] = torch.tensor([float("nan"), float("inf"), -0.0])
    return out


def differences(got, expected):
    """Names and bytes that differ; nan equals nan."""
    out = [f"'{name}' is missing" for name in expected if name not in got]
    out += [f"'{name}' is too much" for name in got if name not in expected]
    for name, y in expected.items():
        x = got.get(name)
        if x is None:
            continue
        if x.dtype != y.dtype or x.shape != y.shape:
            out.append(f"'{name}' is {x.dtype} {list(x.shape)}, expected {y.dtype} {list(y.shape)}")
        elif x.numel() and not torch.equal(x.contiguous().view(-1).view(torch.uint8), y.contiguous().view(-1).view(torch.uint8)):
            out.append(f"'{name}' has other elements")
    return out


def lua_string(text):
    return '"' + "".join(f"\\{b:03d}" for b in text.encode()) + '"'


def compare(tap, worker, seed, count):
    with_numpy(tap, worker, seed, count)
    if not load_file:
        tap.result("files", skip="Python's safetensors is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.safetensors")
        both = [("nyx.save opens in safetensors", from_nyx), ("safetensors loads with nyx.load", to_nyx),
                ("a module of nyx.save has its state_dict's names", module)]
        run_all(tap, both, worker, path, seed, count)


def run_all(tap, both, worker, path, seed, count):
    for name, run in both:
        failures = []
        for i in range(count):
            try:
                failures += run(worker, path, Random(seed, name, i))
            except Exception as e:  # whatever a reader raises
                failures.append(f"{type(e).__name__}: {e}")
        tap.result(f"files, {name}: {count} files", failures)


def with_numpy(tap, worker, seed, count):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x")
        both = [(".npy of nyx.save opens in NumPy", npy_from_nyx), (".npy of NumPy loads with nyx.load", npy_to_nyx),
                (".npz of nyx.save opens in NumPy", npz_from_nyx), (".npz of NumPy loads with nyx.load", npz_to_nyx)]
        run_all(tap, both, worker, path, seed, count)


def arrays_of(r):
    """Tensors that NumPy has too."""
    return {name: x for name, x in tensors_of(r).items() if x.dtype != torch.bfloat16}


def npy_from_nyx(worker, path, r):
    out = []
    for name, x in arrays_of(r).items():
        worker.run(f"assert(nyx.save({lua_string(path + '.npy')}, T[1]))", [x])
        got = numpy.load(path + ".npy", allow_pickle=False)
        if not got.flags.c_contiguous:
            out.append(f"'{name}' is not in C's order")
        out += differences({name: torch.from_numpy(got)}, {name: x})
    return out


def array_of(r, x):
    """The same elements in some byte order, some order of dimensions."""
    array = x.detach().numpy()
    if array.ndim and r.chance(0.5):  # NumPy gives one of no dimensions one
        array = numpy.asfortranarray(array)
    return array.astype(array.dtype.newbyteorder(">"), order="K") if r.chance(0.5) else array


def npy_to_nyx(worker, path, r):
    out = []
    for name, x in arrays_of(r).items():
        array = array_of(r, x)
        with open(path + ".npy", "wb") as file:
            numpy.lib.format.write_array(file, array, version=r.choice([(1, 0), (2, 0), (3, 0)]), allow_pickle=False)
        got = worker.run(f"return {{assert(nyx.load({lua_string(path + '.npy')}))}}, 1")
        out += differences({name: got[0]}, {name: x})
    return out


def npz_from_nyx(worker, path, r):
    tensors = arrays_of(r)
    pairs = ",".join(f"[{lua_string(name)}]=T[{i + 1}]" for i, name in enumerate(tensors))
    worker.run(f"assert(nyx.save({lua_string(path + '.npz')}, {{{pairs}}}))", list(tensors.values()))
    with numpy.load(path + ".npz", allow_pickle=False) as got:
        return differences({name: torch.from_numpy(got[name]) for name in got.files}, tensors)


def npz_to_nyx(worker, path, r):
    tensors = arrays_of(r)
    save = numpy.savez_compressed if r.chance(0.5) else numpy.savez
    save(path + ".npz", **{name: array_of(r, x) for name, x in tensors.items()})
    names = list(tensors)
    picks = ",".join(f"t[{lua_string(name)}]" for name in names)
    answer = worker.run(f"local t, message = nyx.load({lua_string(path + '.npz')}) if not t then error(message, 0) end "
                        f"local n = 0 for _ in pairs(t) do n = n + 1 end return {{{picks}, tostring(n)}}, {len(names) + 1}")
    extra = [] if int(answer[-1]) == len(names) else [f"{answer[-1]} tensors, expected {len(names)}"]
    return extra + differences({name: x for name, x in zip(names, answer) if x is not None}, tensors)


def from_nyx(worker, path, r):
    tensors = tensors_of(r)
    pairs = ",".join(f"[{lua_string(name)}]=T[{i + 1}]" for i, name in enumerate(tensors))
    worker.run(f"assert(nyx.save({lua_string(path)}, {{{pairs}}}))", list(tensors.values()))
    return differences(load_file(path), tensors)


def to_nyx(worker, path, r):
    tensors = {name: x.contiguous() for name, x in tensors_of(r).items()}
    save_file(tensors, path, metadata={"format": "pt"} if r.chance(0.5) else None)
    names = list(tensors)
    picks = ",".join(f"t[{lua_string(name)}]" for name in names)
    lua = (f"local t, message = nyx.load({lua_string(path)}) if not t then error(message, 0) end "
           f"local n = 0 for _ in pairs(t) do n = n + 1 end return {{{picks}, tostring(n)}}, {len(names) + 1}")
    answer = worker.run(lua)
    got = {name: x for name, x in zip(names, answer) if x is not None}
    extra = [] if int(answer[-1]) == len(names) else [f"{answer[-1]} tensors, expected {len(names)}"]
    return extra + differences(got, tensors)


def module(worker, path, r):
    weight, bias = r.tensor([3, 4], torch.float32, plain=True), r.tensor([3], torch.float32, plain=True)
    worker.run(f"local m = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)) "
               f"nyx.no_grad(function() m[1].weight:copy_(T[1]) m[1].bias:copy_(T[2]) end) "
               f"assert(nyx.save({lua_string(path)}, m))", [weight, bias])
    got = list(load_file(path).values())
    return [] if any(torch.equal(x, weight) for x in got) and any(torch.equal(x, bias) for x in got) \
        else [f"the weights are not in the file: {list(load_file(path))}"]
