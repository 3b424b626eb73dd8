"""The machine's own limits, by compute.c and memory.c, which are compiled here."""
import os
import subprocess

import sides

BANDWIDTHS = ("copy", "triad", "read")
UNITS = ("fma32", "fma64", "vnni", "bf16dot", "amx_int8", "amx_bf16", "popcount")


class Limits:
    """Operations or bytes a second, as 1e9 of them. rate(kind, amount) is the best of the run, as
    other tenants of a machine only ever lower one; now(kind, amount) what it is at the moment."""

    def __init__(self, threads):
        self.threads, self.best, self.programs = threads, {}, {}
        for name in ("compute", "memory"):
            program = os.path.join(sides.folder(), name)
            source = os.path.join(sides.HERE, f"{name}.c")
            built = subprocess.run(["cc", "-std=gnu11", "-O3", "-ffp-contract=fast", "-pthread", "-Wno-psabi", source,
                                    "-o", program], capture_output=True, text=True)
            if built.returncode:
                print(f"no limits: cc could not compile {source}\n{built.stderr}")
            else:
                self.programs[name] = program

    def measure(self, kind, amount, rounds):
        name = "memory" if kind in BANDWIDTHS else "compute"
        if name not in self.programs:
            return None
        command = [self.programs[name], kind, *([str(int(amount))] if name == "memory" else []), str(self.threads),
                   str(rounds)]
        answer = subprocess.run(command, capture_output=True, text=True)
        return float(answer.stdout) if answer.returncode == 0 and answer.stdout else None

    def key(self, kind, amount):
        return f"{kind} {amount / 1e6:.4g} MB" if kind in BANDWIDTHS else kind

    def now(self, kind, amount, rounds=3):
        rate = self.measure(kind, amount, rounds)
        if rate:
            key = self.key(kind, amount)
            self.best[key] = max(self.best.get(key, 0), rate)
        return rate

    def rate(self, kind, amount):
        """Measures again: the best so far."""
        self.now(kind, amount, 5)
        return self.best.get(self.key(kind, amount))

    def survey(self):
        """Every unit, and the bandwidths of a cached and an uncached working set."""
        for kind in UNITS:
            self.rate(kind, 0)
        for kind in BANDWIDTHS:
            for amount in (96e3, 3e6, 12e6, 192e6):
                self.rate(kind, amount)
