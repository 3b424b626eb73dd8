"""The processes that are measured: Nyx, PyTorch and the other peers. Each lives through the run
and answers requests, one line each (see lua/nyx/bench/serve.lua). Read next: run.py."""
import glob
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Side:
    """A process that answers. by_call: it is asked for calls ("gemm ..."), not for cases."""

    def __init__(self, command, by_call=False, **environment):
        self.command, self.by_call = command, by_call
        self.environment = {**os.environ, **environment}
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=self.environment)
        self.name = self.process.stdout.readline().strip()

    def ask(self, request):
        """The answer; a process that ended is started again, for the next question."""
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return answer.rstrip("\n")
        code = self.process.wait()
        self.start()
        return f"error the process ended with {code}"

    def settle(self):
        """Returns when its threads have stopped to wait for work by spinning, which would take a
        core from the next: after 5 to 15 ms for libgomp, up to 130 for OpenBLAS."""
        tasks = f"/proc/{self.process.pid}/task"
        if not os.path.isdir(tasks):
            time.sleep(0.2)
            return
        end = time.monotonic() + 1
        time.sleep(0.001)
        while running(tasks) and time.monotonic() < end:
            time.sleep(0.002)

    def list(self):
        lines = [self.ask("list")]
        while lines[-1] not in (".", "") and not lines[-1].startswith("error"):
            lines.append(self.process.stdout.readline().strip("\n"))
        return [line.split("\t") for line in lines[:-1]]

    def time(self, case, repeats, warm=True):
        """Seconds, or None and why."""
        verb = "time" if warm else "cold"
        if self.by_call:
            answer = self.ask(f"{verb} {repeats} {case['peer']}") if case["peer"] else "none"
        else:
            answer = self.ask(f"{verb} {case['name']} {repeats}")
        try:
            return float(answer), ""
        except ValueError:
            return None, answer


def running(tasks):
    """Whether any of these threads runs, or would."""
    for path in glob.glob(tasks + "/*/stat"):
        try:
            with open(path) as file:
                if file.read().rsplit(") ", 1)[1].startswith("R"):
                    return True
        except OSError:
            pass  # it has ended
    return False


def pythons(more):
    """Where peers may be: the Python that runs this, those given, and virtual environments in the tree."""
    candidates = [sys.executable, *more]
    candidates += [os.path.join(ROOT, "build", name, "bin", "python") for name in ("bench", "peers")]
    return [python for python in dict.fromkeys(candidates) if os.path.exists(python)]


def ask_python(python, code):
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def torch_side(candidates, threads):
    for python in candidates:
        if ask_python(python, "import torch; print(1)"):
            side = Side([python, os.path.join(HERE, "torch_side.py"), str(threads)])
            side.python = python
            return side
    return None


def numpy_side(candidates, threads):
    for python in candidates:
        if ask_python(python, "import numpy; print(1)"):
            return Side([python, os.path.join(HERE, "numpy_side.py")])
    return None


def openblas_side(candidates, threads):
    """The one of PyPI, which knows new CPUs."""
    script = os.path.join(HERE, "openblas.py")
    for python in candidates:
        libraries = ask_python(python, "import scipy_openblas32 as b; print(b.get_lib_dir())")
        for library in glob.glob(libraries + "/libscipy_openblas*") if libraries else []:
            return Side([sys.executable, script, library, "scipy_", str(threads)], True,
                        OPENBLAS_NUM_THREADS=str(threads))
    return None


def system_openblas_side(candidates, threads):
    """The system's, told which kernels to use where it does not know the CPU."""
    if not ask_python(sys.executable, "import ctypes; ctypes.CDLL('libopenblas.so.0'); print(1)"):
        return None
    environment = {"OPENBLAS_NUM_THREADS": str(threads)}  # OMP_NUM_THREADS is set for all
    if "avx512f" in cpu_flags():
        environment["OPENBLAS_CORETYPE"] = "SkylakeX"
    return Side([sys.executable, os.path.join(HERE, "openblas.py"), "libopenblas.so.0", "", str(threads)], True,
                **environment)


def onednn_side(candidates, threads):
    """A program made here: against the system's library, whose threads are OpenMP's, or PyPI's
    beside some Python, which goes through SYCL: 11 us or more for the least call."""
    places = [""] + [os.path.dirname(os.path.dirname(python)) for python in candidates]
    source = os.path.join(HERE, "onednn.c")
    for place in places:
        if place and not os.path.exists(f"{place}/include/dnnl.h"):
            continue
        flags = [f"-I{place}/include", f"-L{place}/lib"] if place else []
        program = os.path.join(folder(), "onednn")
        built = subprocess.run(["cc", "-std=gnu11", "-O2", "-w", source, "-o", program, *flags, "-ldnnl",
                                "-Wl,--allow-shlib-undefined"],
                               capture_output=True)
        if built.returncode:
            continue
        environment = {"ONEDNN_VERBOSE": "none"}  # OMP_NUM_THREADS is set for all
        if place:
            environment.update(LD_LIBRARY_PATH=f"{place}/lib", DPCPP_CPU_NUM_CUS=str(threads))
            if os.path.exists(f"{place}/lib/libintelocl.so"):
                environment["OCL_ICD_FILENAMES"] = f"{place}/lib/libintelocl.so"
        side = Side([program], True, **environment)
        if side.name:
            side.name += f", {threads} threads"
            return side
    return None


# Name, how it is started, how it is installed where it is not found.
PEERS = [
    ("torch", torch_side, "pip install torch==2.13.0 (Python package)"),
    ("openblas", openblas_side, "pip install scipy-openblas32 (Python package)"),
    ("openblas-system", system_openblas_side, "apt-get install libopenblas0-pthread"),
    ("onednn", onednn_side, "apt-get install libdnnl-dev, or pip install onednn onednn-devel (Python packages)"),
    ("numpy", numpy_side, "pip install numpy (Python package)"),
]

_folder = None


def folder():
    """A folder for this run's programs and files, removed at its end."""
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory()
    return _folder.name


def cpu_flags():
    with open("/proc/cpuinfo") as info:
        return next((set(line.split(":")[1].split()) for line in info if line.startswith(("flags", "Features"))), set())
