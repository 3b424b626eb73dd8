"""Targets and the report: what was measured by rows of targets.json, as text and for JSON."""
import fnmatch
import json
import math
import os

import sides

with open(os.path.join(sides.HERE, "targets.json")) as file:
    TARGETS = json.load(file)


def shown(seconds):
    if seconds is None:
        return "-"
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


HEADER = (f"{'case':32} {'nyx':>8} {'torch':>8} {'ratio':>6} {'spread':>11} {'of limit':>14} {'openblas':>8} "
          f"{'onednn':>8} {'numpy':>8}")


def line(name, row):
    if "missing" in row:
        return f"{name:32} missing: {row['missing']}"
    if "problem" in row:
        return f"{name:32} {row['problem']}"
    ratio = f"{row['ratio']:.3g}" if row.get("ratio") is not None else "-"
    spread = "{:.2f}..{:.2f}".format(*row["spread"]) if "spread" in row else ""
    limit = f"{row['limit']:.0%} {row['limit_kind']}" if "limit" in row else ""
    blas = min((row[n] for n in ("openblas", "openblas-system") if row.get(n)), default=None)
    return (f"{name:32} {shown(row.get('nyx')):>8} {shown(row.get('torch')):>8} {ratio:>6} {spread:>11} {limit:>14} "
            f"{shown(blas):>8} {shown(row.get('onednn')):>8} {shown(row.get('numpy')):>8}")


def geometric_mean(numbers):
    return math.exp(sum(math.log(n) for n in numbers) / len(numbers)) if numbers else None


def matching(names, patterns):
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def row_of(case):
    """The row a case belongs to, or None."""
    return next((row for row in TARGETS["rows"] if matching([case], row["cases"])), None)


def judge(row, cases, blas_suits):
    """One row of the table: its ratio, its worst limit, and what misses its target."""
    wanted = row["ratio"]
    if row.get("products") and blas_suits:
        wanted = max(wanted, TARGETS["ratio_where_blas_suits"])
    measured = {name: cases[name] for name in matching(cases, row["cases"])}
    ratios = {name: case["ratio"] for name, case in measured.items() if case.get("ratio") is not None}
    mean, misses = geometric_mean(list(ratios.values())), []
    for name, case in measured.items():
        for word in ("missing", "problem", "differs"):
            if word in case:
                misses.append({"case": name, word: case[word]})
    held = ratios.items() if row.get("each") else [(row["row"], mean)] if mean else []
    misses += [{"case": name, "ratio": ratio, "wanted": wanted} for name, ratio in held if ratio > wanted]
    for name, case in measured.items():
        rivals = [case[peer] for peer in ("openblas", "openblas-system", "onednn") if case.get(peer)]
        if "peer" in row and rivals and case.get("nyx") and case["nyx"] / min(rivals) > row["peer"]:
            misses.append({"case": name, "peer_ratio": case["nyx"] / min(rivals), "wanted": row["peer"]})
    limits = {name: measured[name]["limit"] for name in matching(measured, row.get("limit_cases", row["cases"]))
              if "limit" in measured[name]}
    if "limit" in row:
        misses += [{"case": name, "limit": got, "wanted": row["limit"]} for name, got in limits.items()
                   if got < row["limit"]]
    result = {"ratio": mean, "wanted": wanted, "cases": len(measured), "misses": misses, "apart": row.get("apart", False)}
    if "limit" in row:
        result.update(limit=min(limits.values(), default=None), limit_wanted=row["limit"])
    return result


def rows(cases, blas_suits):
    """The table by rows, the geometric mean over those that are not marked to stand apart."""
    judged = {row["row"]: judge(row, cases, blas_suits) for row in TARGETS["rows"] if matching(cases, row["cases"])}
    return judged, geometric_mean([row["ratio"] for row in judged.values() if row["ratio"] and not row["apart"]])


def print_rows(judged, mean):
    print(f"\n{'row':52} {'ratio':>7} {'at most':>8} {'limit':>6} {'at least':>8}")
    for name, row in judged.items():
        ratio = f"{row['ratio']:.3g}" if row["ratio"] else "-"
        limit = f"{row['limit']:.0%}" if row.get("limit") is not None else ""
        least = f"{row['limit_wanted']:.0%}" if "limit_wanted" in row else ""
        print(f"{name:52} {ratio:>7} {row['wanted']:8.3g} {limit:>6} {least:>8}  "
              f"{'missed' if row['misses'] else 'met'}{', apart' if row['apart'] else ''}")
    if mean:
        print(f"{'geometric mean of the rows, without those apart':52} {mean:7.3g} {TARGETS['geometric_mean']:8.3g}")
    missed = [miss for row in judged.values() for miss in row["misses"]]
    if missed:
        print(f"\n{len(missed)} miss their target:")
    for miss in missed:
        kind = kind_of(miss)
        what = f"{miss[kind]:.3g}, wanted {miss['wanted']}" if "wanted" in miss else miss[kind]
        print(f"  {miss['case']:50} {kind.replace('_', ' ')} {what}")


def kind_of(miss):
    return next(k for k in ("missing", "problem", "differs", "ratio", "peer_ratio", "limit") if k in miss)


def print_table(file):
    """The rows of an earlier run, in Markdown, with the cases that miss their target."""
    try:
        with open(file) as results:
            run = json.load(results)
        cases, intel = run["cases"], "Intel" in run["cpu"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{file} is not the results of a run (nyx --bench --json FILE): {error}"
    judged, mean = rows(cases, intel)
    print("| row | ratio | wanted | of the limit, least | missed |\n|---|---|---|---|---|")
    for name, row in judged.items():
        if not row["ratio"]:
            continue
        limit = f"{row['limit'] * 100:.0f} % of {row['limit_wanted'] * 100:.0f}" if row.get("limit") is not None else ""
        print(f"| {'apart: ' if row['apart'] else ''}{name} | {row['ratio']:.2g} | {row['wanted']:g} | {limit} "
              f"| {', '.join(summary(row['misses'], row['cases'] > 1))} |")
    if mean:
        print(f"\nGeometric mean of the rows, without those apart: {mean:.3f}, {TARGETS['geometric_mean']} wanted.")


def summary(misses, named):
    """Misses of a row in words, kind by kind; of more than three the number, the least and the greatest."""
    forms = {"ratio": lambda n: f"{n:.2f}", "peer_ratio": lambda n: f"{n:.2f} of the best peer",
             "limit": lambda n: f"{n * 100:.0f} %"}
    for kind in ("missing", "problem", "differs", "ratio", "peer_ratio", "limit"):
        of_kind = [miss for miss in misses if kind_of(miss) == kind]
        form = forms.get(kind, str)
        if len(of_kind) > 3 and kind in forms:
            values = [miss[kind] for miss in of_kind]
            yield f"{len(values)} cases {min(values):.2f} to {form(max(values))}" if kind != "limit" else (
                f"{len(values)} cases {min(values) * 100:.0f} to {form(max(values))}")
            continue
        for miss in of_kind:
            yield f"`{miss['case']}` {form(miss[kind])}" if named else form(miss[kind])
