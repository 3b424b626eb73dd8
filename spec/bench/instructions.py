"""Counts Nyx's instructions with valgrind's callgrind, for changes that the noise of a machine
would hide: one thread, the AVX2 kernels (valgrind knows no AVX-512), a fixed number of repeats.
Two processes run, one with more repeats than the other, and their difference is what counts."""
import os
import re
import shutil
import subprocess

import sides

USUAL = ["add_16", "add_16_recording", "digits_mlp_step", "chain_1k_backward", "sgemm_64", "exp_1m", "sum_4096_dim1",
         "softmax_forward_4096x1024", "sort_4096x1024"]
REPEATS, REPEATS_OF_SMALL, SMALL = 4, 400, 1e6  # instructions of a small case
SCRIPT = """
require "nyx.bench"
local case = require "nyx.bench.case".by_name["{case}"] or error("there is no case {case}", 0)
local step, run = case.make()
step() step()
if run then run({repeats}) else for _ = 1, {repeats} do step() end end
"""


def profile(nyx, case, repeats):
    """Instructions in all, and by function; None and the message of a failure."""
    file = os.path.join(sides.folder(), f"callgrind.{repeats}")
    environment = {**os.environ, "NYX_CPU": "avx2", "NYX_THREADS": "1"}
    script = SCRIPT.format(case=case, repeats=repeats)
    ran = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={file}", nyx, "-e", script],
                         env=environment, capture_output=True, text=True)
    if ran.returncode:
        said = [line for line in ran.stderr.split("\n") if line and not line.startswith("==")]
        return None, said[0] if said else f"valgrind ended with {ran.returncode}"
    shown = subprocess.run(["callgrind_annotate", "--threshold=100", "--show-percs=no", file], capture_output=True,
                           text=True).stdout
    functions, total = {}, 0
    for line in shown.split("\n"):
        match = re.match(r"\s*([\d,]+)\s+(.*)$", line)
        if not match:
            continue
        count, name = int(match[1].replace(",", "")), match[2]
        if "PROGRAM TOTALS" in name:
            total = count
        else:
            name = re.sub(r"^.*?:", "", name.split(" [")[0]) + re.sub(r"^.*\[.*/", " [", name if " [" in name else "")
            functions[name] = functions.get(name, 0) + count
    return total, functions


def main(nyx, cases):
    if not shutil.which("valgrind"):
        print("valgrind is not found: apt-get install valgrind")
        return 1
    failed = 0
    print("instructions of one repeat; one thread, avx2 kernels, after two, "
          f"mean of {REPEATS}, or of {REPEATS_OF_SMALL} short ones\n")
    for case in cases or USUAL:
        base, before = profile(nyx, case, 0)
        repeats = REPEATS
        total, after = profile(nyx, case, repeats) if base is not None else (None, before)
        if total is not None and total - base < SMALL * REPEATS:
            repeats = REPEATS_OF_SMALL
            total, after = profile(nyx, case, repeats)
        if total is None:
            print(f"{case}: {after}")
            failed = 1
            continue
        print(f"{case:32} {(total - base) / repeats:18,.0f}")
        spent = sorted(((after[f] - before.get(f, 0)) / repeats, f) for f in after)
        for count, function in reversed(spent[-8:]):
            if count > 0:
                print(f"    {count:16,.0f}  {count * repeats / max(total - base, 1):4.0%}  {function}")
    return failed
