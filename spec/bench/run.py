#!/usr/bin/env python3
"""Times Nyx against PyTorch, case by case, in interleaved rounds of one run.

    python3 spec/bench/run.py [--nyx build/release/bin/nyx] [--json FILE] [case ...]

Each side is one process that stays alive; a case is timed in rounds, Nyx and PyTorch in
turn, and the ratio is the median of the rounds' ratios. A turn begins with one repeat that is not timed: caches are warm
on both sides, and threads of the other side that wait for work by spinning have stopped.
Without PyTorch (pip install torch==2.13.0) its column stays empty. Matrix products are also
given as a fraction of the multiply-add peak that peak.c measures in the same run, at its start
and after the case; the better one counts, as other tenants of a machine lower it.
Not a test: nothing here passes or fails."""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROUNDS = 9
SECONDS = 0.1  # a round of one side takes about this long
FLOPS = {"sgemm1024": 2 * 1024**3}


class Side:
    """A process that answers "case repeats" with seconds."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = self.process.stdout.readline().strip()

    def time(self, case, repeats):
        self.process.stdin.write(f"{case} {repeats}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        return None if answer in ("none", "") else float(answer)

    def repeats(self, case):
        """How many repeats fill a round; also warms up."""
        n = 1
        while True:
            seconds = self.time(case, n)
            if seconds is None:
                return 0
            if seconds * n >= SECONDS / 2 or n > 10**8:
                return max(1, round(SECONDS / max(seconds, 1e-9)))
            n *= 4


def start_times(command, rounds=15):
    """Whole processes: seconds from start to end, and the most memory held, in MiB."""
    seconds, memory = [], 0
    for _ in range(rounds):
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, _, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - begin)
        memory = max(memory, usage.ru_maxrss / 1024)
    return statistics.median(seconds), memory


def peak(threads):
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "peak")
        built = subprocess.run(["cc", "-O3", "-ffp-contract=fast", "-pthread", "-Wno-psabi",
                                os.path.join(HERE, "peak.c"), "-o", program])
        if built.returncode:
            return None
        return float(subprocess.run([program, str(threads)], capture_output=True, text=True).stdout)


def shown(seconds):
    if seconds is None:
        return "-"
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nyx", default="build/release/bin/nyx")
    parser.add_argument("--json")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    os.environ["NYX_THREADS"] = str(threads)
    nyx = Side([options.nyx, os.path.join(HERE, "cases.lua")])
    torch = None
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0:
        torch = Side([sys.executable, os.path.join(HERE, "cases.py"), str(threads)])
    fma = peak(threads)
    with open("/proc/cpuinfo") as info:
        cpu = next((l.split(":")[1].strip() for l in info if l.startswith("model name")), platform.machine())
    print(f"{cpu}, {threads} threads; {nyx.name}; {torch.name if torch else 'no torch'}")
    print()
    print(f"{'case':20} {'nyx':>10} {'torch':>10} {'ratio':>7}  {'spread':>13}  of peak")
    names = ["add16", "add16_recording", "add1m", "exp1m", "gelu1m", "softmax", "sgemm1024", "digits_step",
             "chain1k_backward", "chain1m_backward", "mlp_backward", "per_sample_gradients", "hvp"]
    results = {}
    for case in options.cases or names:
        a = nyx.repeats(case)
        b = torch.repeats(case) if torch else 0
        if not a:
            print(f"{case:20} unknown to cases.lua")
            continue
        ours, theirs, ratios = [], [], []
        for _ in range(ROUNDS):
            ours.append(nyx.time(case, a))
            if b:
                theirs.append(torch.time(case, b))
                ratios.append(ours[-1] / theirs[-1])
        row = {"nyx": statistics.median(ours), "torch": statistics.median(theirs) if b else None,
               "ratio": statistics.median(ratios) if b else None}
        if case in FLOPS and fma:
            fma = max(fma, peak(threads))
            row["limit"] = FLOPS[case] / row["nyx"] / 1e9 / fma
        results[case] = row
        spread = f"{min(ratios):.2f}..{max(ratios):.2f}" if b else ""
        print(f"{case:20} {shown(row['nyx']):>10} {shown(row['torch']):>10} "
              f"{row['ratio'] if b else 0:7.2f}  {spread:>13}  "
              f"{row['limit']:.0%}" if "limit" in row else
              f"{case:20} {shown(row['nyx']):>10} {shown(row['torch']):>10} "
              f"{row['ratio'] if b else 0:7.2f}  {spread:>13}", flush=True)
    if not options.cases:
        ours = start_times([options.nyx, "-e", "require 'nyx'"])
        row = {"nyx": ours[0], "nyx_mib": ours[1]}
        if torch:
            theirs = start_times([sys.executable, "-c", "import torch"], 3)
            row.update(torch=theirs[0], torch_mib=theirs[1], ratio=ours[0] / theirs[0])
        results["start"] = row
        print(f"{'start':20} {shown(ours[0]):>10} {shown(row.get('torch')):>10} {row.get('ratio', 0):7.3f}"
              f"   {ours[1]:.1f} MiB" + (f" against {row['torch_mib']:.0f} MiB" if torch else ""))
    print(f"\nmultiply-add peak {fma} GFLOP/s")
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"cpu": cpu, "threads": threads, "nyx": nyx.name, "torch": torch and torch.name,
                       "fma_gflops": fma, "date": time.strftime("%Y-%m-%d"), "cases": results}, out, indent=1)


if __name__ == "__main__":
    main()
