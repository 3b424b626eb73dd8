#!/usr/bin/env python3
"""Times Nyx against its peers, case by case, in interleaved rounds of one run.

    python3 spec/bench/run.py [options] [case ...]

A case is given by its name, the beginning of one (sgemm, conv_b1), a pattern ("*_out") or its
group (elementwise reduce norm product conv attention sort factor optim overhead models); without
any all are run. Each side is one process that stays alive. Before a case is timed its results are
compared with PyTorch's. Then it is timed in rounds, all sides in turn, and the ratio is the
median of the rounds' ratios of Nyx to PyTorch. A turn begins with one repeat that is not timed,
unless a repeat takes long, so that caches are warm on all sides, and ends with a pause in which
threads that wait for work by spinning stop. The fraction of the machine's limit is the median of
the rounds' too: the limit takes a turn beside Nyx in each. Peers that are not installed leave
their column empty. With --instructions Nyx's instructions are counted instead.
Not a test: nothing here passes or fails. Read next: docs/benchmarks/README.md."""
import argparse
import fnmatch
import json
import os
import platform
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # an installed tree stays as it is
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

import instructions  # noqa: E402
import limits  # noqa: E402
import report  # noqa: E402
import sides  # noqa: E402

LONG = 0.3  # seconds of a repeat that needs no warming up


def repeats_of(side, case, seconds):
    """How many repeats fill a round, and how long one takes; 0 and why when it cannot be."""
    n = 1
    took, why = side.time(case, 1, warm=False)  # the first touches memory
    if took is not None and took < LONG:
        took, why = side.time(case, 1)
    while took is not None and took * n < seconds / 3 and n < 10**8:
        n = min(n * 10, max(n * 2, round(seconds / max(took, 1e-9))))
        took, why = side.time(case, n)
    return (0, why) if took is None else (max(1, round(seconds / max(took, 1e-9))), took)


def measure(case, nyx, peers, options, machine):
    """The row of one case."""
    name, row = case["name"], {}
    if case["missing"]:
        return {"missing": case["missing"]}
    if case["note"]:
        row["note"] = case["note"]
    torch = peers.get("torch")
    if torch:
        path = os.path.join(sides.folder(), "results")
        answer = nyx.ask(f"check {name} {path}")
        if not answer.startswith("ok"):
            return {"problem": f"nyx: {answer}"}
        answer = torch.ask(f"check {name} {path} {case['checks']}")
        os.remove(path)
        words = answer.split(maxsplit=2)
        if words[0] != "ok":
            row["differs"] = f"torch: {answer}"
        else:
            row["error"] = float(words[1])
            if not row["error"] <= case["tol"]:
                row["differs"] = f"by {words[1]} of the greatest element ({words[2]}), allowed {case['tol']:g}"
    everyone = {"nyx": nyx, **peers}
    turns = {}
    for who, side in everyone.items():
        n, took = repeats_of(side, case, options.seconds)
        if n:
            turns[who] = n, took
        elif who == "nyx":
            return {"problem": f"nyx: {took}"}
    if case["limit"]:
        machine.rate(case["limit"], case["amount"])
    # Fewer rounds of what takes long, so that the whole table takes minutes.
    rounds = max(min(3, options.rounds), min(options.rounds, int(10 / sum(n * took for n, took in turns.values()))))
    times, fractions = {who: [] for who in turns}, []
    for _ in range(rounds):
        for who, (n, took) in turns.items():
            seconds, _ = everyone[who].time(case, n, warm=took < LONG)
            times[who].append(float("nan") if seconds is None else seconds)
            everyone[who].settle()
            rate = machine.now(case["limit"], case["amount"]) if who == "nyx" and case["limit"] else None
            if rate and seconds:
                fractions.append(case["amount"] / seconds / 1e9 / rate)
    for who, list_of in times.items():
        row[who] = statistics.median(list_of)
    if "torch" in times:
        ratios = [a / b for a, b in zip(times["nyx"], times["torch"])]
        row["ratio"], row["spread"] = statistics.median(ratios), [min(ratios), max(ratios)]
    if case["limit"]:
        rate = machine.rate(case["limit"], case["amount"])
        if rate and fractions:
            row.update(limit=statistics.median(fractions), limit_spread=[min(fractions), max(fractions)],
                       limit_of_best=case["amount"] / row["nyx"] / 1e9 / rate, limit_kind=case["limit"],
                       limit_rate=rate)
    row["rounds"] = rounds
    for side in everyone.values():
        side.ask("drop")
    return row


def start_of(command, rounds):
    """A whole process: seconds from start to end, and the most memory held, in MiB."""
    seconds, memory = [], 0
    for _ in range(rounds):
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, _, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - begin)
        memory = max(memory, usage.ru_maxrss / 1024)
    return statistics.median(seconds), memory


def start_rows(options, torch):
    ours = start_of([options.nyx, "-e", "print(require 'nyx'.ones(3))"], 15)
    start, memory = {"nyx": ours[0]}, {"nyx_mib": ours[1]}
    if torch:
        theirs = start_of([torch.python, "-c", "import torch; print(torch.ones(3))"], 3)
        start.update(torch=theirs[0], ratio=ours[0] / theirs[0])
        memory.update(torch_mib=theirs[1], ratio=ours[1] / theirs[1])
    return start, memory


def wanted(case, selection):
    return not selection or any(
        case["name"] == word or case["group"] == word or case["name"].startswith(word + "_")
        or fnmatch.fnmatchcase(case["name"], word) for word in selection)


def list_cases(nyx):
    names = ("name", "group", "limit", "amount", "tol", "checks", "peer", "note", "missing")
    cases = [dict(zip(names, fields)) for fields in nyx.list()]
    for case in cases:
        case.update(amount=float(case["amount"]), tol=float(case["tol"]), checks=int(case["checks"]))
    return cases


def cpu_name():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())


FLAGS = ("avx2 fma f16c avx512f avx512bw avx512vl avx_vnni avx512_vnni avx512_bf16 avx512_fp16 avx512_vpopcntdq "
         "amx_tile amx_int8 amx_bf16 asimd sve bf16 i8mm").split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nyx", default=os.path.join(sides.ROOT, "build/release/bin/nyx"))
    parser.add_argument("--json", help="write the results to this file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="few short rounds: to see that everything works")
    parser.add_argument("--no-peers", action="store_true", help="Nyx alone, without comparing results")
    parser.add_argument("--python", action="append", default=[], help="another Python that has peers")
    parser.add_argument("--instructions", action="store_true", help="count Nyx's instructions with valgrind")
    parser.add_argument("--list", action="store_true", help="show the cases")
    parser.add_argument("--table", metavar="JSON", help="show the rows of an earlier run in Markdown")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    if options.table:
        return report.print_table(options.table)
    options.rounds, options.seconds = (2, 0.02) if options.quick else (9, 0.06)
    threads = options.threads
    for variable in ("NYX_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if options.instructions:
        return instructions.main(options.nyx, options.cases)

    begin = time.time()
    nyx = sides.Side([options.nyx, "-e", "require 'nyx.bench.serve'"])
    cases = [case for case in list_cases(nyx) if wanted(case, options.cases)]
    with_start = not options.cases or "start" in options.cases
    if options.list:
        for case in cases:
            print(f"{case['name']:40} {case['group']:12} {case['missing'] and 'missing: ' + case['missing']}"
                  f"{case['note']}")
        return 0
    if not cases and not with_start:
        print(f"no case is called {' or '.join(options.cases)}; see --list")
        return 1
    peers = {}
    for name, start, install in sides.PEERS if not options.no_peers else []:
        side = start(sides.pythons(options.python), threads)
        if side:
            peers[name] = side
        else:
            print(f"{name} is not found: {install}")
    machine = limits.Limits(threads)
    if not options.cases:
        machine.survey()
    print(f"{cpu_name()}, {threads} threads{', quick: numbers mean little' if options.quick else ''}")
    print("; ".join(side.name for side in (nyx, *peers.values())))
    print("Warm caches; m: 2^20 elements; ratio: nyx by torch, below 1 Nyx is faster.\n")
    print(report.HEADER)
    results = {}
    for case in cases:
        row = results[case["name"]] = measure(case, nyx, peers, options, machine)
        print(report.line(case["name"], row), flush=True)
        if "differs" in row:
            print(f"*** {case['name']} DIFFERS from PyTorch: {row['differs']} ***", flush=True)
    if with_start:
        results["start"], results["start_memory"] = start_rows(options, peers.get("torch"))
        print(report.line("start", results["start"]))
        memory = results["start_memory"]
        print(f"{'start_memory':32} {memory['nyx_mib']:.1f} MiB" +
              (f", torch {memory['torch_mib']:.0f} MiB" if "torch_mib" in memory else ""))
    judged, mean = report.rows(results, "GenuineIntel" in open("/proc/cpuinfo").read())
    if "torch" in peers:
        report.print_rows(judged, mean)
    notes = {}
    for case in cases:
        if case["note"]:
            notes.setdefault(case["note"], []).append(case["name"])
    for note, names in notes.items():
        print(f"note: {', '.join(names)}: {note}")
    print("limits: " + ", ".join(f"{key} {rate:.4g}" for key, rate in machine.best.items())
          + " (1e9 operations or bytes a second)")
    print(f"{time.time() - begin:.0f} s")
    if options.json:
        data = {"cpu": cpu_name(), "flags": [flag for flag in FLAGS if flag in sides.cpu_flags()],
                "threads": threads, "date": time.strftime("%Y-%m-%d"), "nyx": nyx.name,
                **{name: peers[name].name if name in peers else None for name, _, _ in sides.PEERS},
                "quick": options.quick, "seconds": round(time.time() - begin), "limits": machine.best,
                "geometric_mean": mean, "geometric_mean_wanted": report.TARGETS["geometric_mean"],
                "missed": [miss for row in judged.values() for miss in row["misses"]],
                "rows": {name: {k: v for k, v in row.items() if k != "misses"} for name, row in judged.items()},
                "cases": results}
        with open(options.json, "w") as out:
            json.dump(data, out, indent=1)
            out.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
