#!/usr/bin/env python3
"""Compares Nyx with PyTorch on random calls, in TAP. One process of Nyx and this one, which
holds the peers, live through the whole run.

    python3 spec/peers/peer.py [--nyx build/release/bin/nyx] [--seed N] [--cases N]
                               [part or op ...]

Parts: self, ops, composites, edges, promotion, complex, func, layers, optimisers, changes, formats,
files; or names of ops. The seed is printed;
NYX_SPEC_SEED or --seed replays a run, and --case float64/17 one case of an op. Each line says
how many cases there were and the worst error; ' marks first and '' second gradients, > forward mode.
Read next: ops.py, table.py, func.py."""
import argparse
import json
import os
import random
import sys

try:
    import torch
except ImportError:
    print("1..1\nok 1 - peers # SKIP PyTorch is not installed (pip install -r spec/peers/requirements.txt)")
    sys.exit(0)

import changes
import complexes
import composites
import edges
import files
import formats
import func
import layers
import ops
import optimisers
import promotion
from worker import Worker

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Tap:
    def __init__(self):
        self.count = self.failed = 0

    def result(self, name, failures=(), skip=None):
        self.count += 1
        self.failed += bool(failures)
        ok = "not ok" if failures else "ok"
        print(f"{ok} {self.count} - {name}" + (f" # SKIP {skip}" if skip else ""))
        for failure in list(failures)[:6]:
            print("\n".join("# " + line for line in failure.splitlines()))
        if len(failures) > 6:
            print(f"# ... and {len(failures) - 6} more")
        sys.stdout.flush()


def described(worker):
    return [ops.Op(d) for d in json.loads(worker.run("return describe()")[0])]


def compare_ops(tap, worker, options, chosen):
    counts = {"float64": options.cases, "float32": max(options.cases // 3, 1)}
    few = max(options.cases // 6, 1)
    for op in [*described(worker), *ops.composites()]:
        if chosen and op.name not in chosen:
            continue
        if op.reason():
            continue
        if op.peer is None:
            tap.result(op.name, [f"op '{op.name}' has no peer: add it to PEERS or, with the reason, to NO_PEER "
                                 "in spec/peers/table.py"])
            continue
        only = None
        if options.case:
            dtype, number = options.case.split("/")
            only = (dtype, int(number))
        report = ops.run_op(worker, op, options.seed, {d: counts.get(d, few) for d in op.dtypes}, only)
        tap.result(f"{op.name}: {report.text()}", report.failures)


# Mistakes, added to the result of a call: of the value; of the first gradient alone; of the
# second alone; of forward mode alone.
PLANTED = {
    "value": "%s + 1e-7 * x0:detach():abs():amax()",
    "first gradient": "%s + 1e-7 * (x0 - x0:detach()):sum()",
    "second gradient": "%s + 1e-7 * ((x0 - x0:detach()) * (x0 - x0:detach())):sum()",
    "derivative": "%s + 1e-7 * (nyx.lift.is_lifted(x0) and x0 - x0:detach() or 0 * x0):sum()",
}


def check_self(tap, worker, options):
    """Planted mistakes must be found, where there was nothing to find before."""
    every = {op.name: op for op in described(worker)}
    for name in ("mul", "tanh", "matmul", "softmax", "sum"):
        counts = {"float64": 10}
        failures = []
        if ops.run_op(worker, every[name], options.seed, counts).failures:
            failures.append("the calls fail without a mistake")
        for what, text in PLANTED.items():
            report = ops.run_op(worker, every[name], options.seed, counts, mutate=lambda call, t=text: t % call)
            if not any(what in f or what == "value" and "result" in f for f in report.failures):
                failures.append(f"a wrong {what} was not found")
        tap.result(f"self: planted mistakes in {name} are found", failures)
    func.check_self(tap, worker, options.seed)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nyx", default=os.path.join(ROOT, "build/release/bin/nyx"))
    parser.add_argument("--seed", default=os.environ.get("NYX_SPEC_SEED") or random.randrange(10**6))
    parser.add_argument("--cases", type=int, default=24, help="cases of an op in float64")
    parser.add_argument("--case", help="only this case, such as float64/17")
    parser.add_argument("what", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"# seed {options.seed}; replay with NYX_SPEC_SEED={options.seed}; torch {torch.__version__}")
    worker = Worker(options.nyx, os.path.join(HERE, "worker.lua"))
    tap = Tap()
    few = max(options.cases // 2, 4)
    parts = {
        "self": lambda: check_self(tap, worker, options),
        "ops": lambda: compare_ops(tap, worker, options, set()),
        "composites": lambda: composites.compare(tap, worker, options),
        "edges": lambda: edges.compare(tap, worker, described(worker)),
        "promotion": lambda: promotion.compare(tap, worker),
        "complex": lambda: complexes.compare(tap, worker, options.seed, few),
        "func": lambda: func.compare(tap, worker, options.seed, few),
        "layers": lambda: layers.compare(tap, worker, options.seed, few),
        "optimisers": lambda: optimisers.compare(tap, worker, options.seed, few),
        "changes": lambda: changes.compare(tap, worker, options.seed, few),
        "formats": lambda: formats.compare(tap, worker, options.seed, few),
        "files": lambda: files.compare(tap, worker, options.seed, few),
    }
    for part in parts:
        if not options.what or part in options.what:
            parts[part]()
    names = set(options.what) - set(parts)
    if names:
        compare_ops(tap, worker, options, names)
        composites.compare(tap, worker, options, names)
    status = worker.close()
    if status:
        tap.result("the worker ends", [f"nyx ended with status {status}"])
    print(f"1..{tap.count}")
    return tap.failed > 0


sys.exit(main())
