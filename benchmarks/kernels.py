"""`make kernels-report`: every GPU kernel at every Falcon's shape, compiled for sm_80, sm_86 and sm_90 without a GPU.

Figures are kept under a key of the kernel's source and of all it is compiled for, so that a test can tell whether they
are those of the code at hand without compiling everything again.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "kernels-aot.json"
WORKERS = 2

IDENTITY = ("kernel", "arch", "model", "shape")
COSTS = ("registers", "spill_bytes", "shared_bytes", "tensor_core_instructions", "narrow_loads", "loop_shared_stores")

Entry = dict[str, Any]
Job = tuple[int, int]
"""(index of the variant, compute capability)."""


def main() -> None:
    """Compiles changed kernels, prints the table, saves the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="compile again what has not changed, too")
    parser.add_argument("--accept", action="store_true", help="keep figures that are worse than before")
    parser.add_argument(
        "--only", nargs=2, metavar=("KERNEL", "MODEL"), help="compile these anew and print them as JSON"
    )
    parser.add_argument(
        "--keys", action="store_true", help="print the key of every kernel as JSON, and compile nothing"
    )
    options = parser.parse_args()
    # Under the interpreter a kernel is a Python function, which nothing compiles.
    if os.environ.pop("TRITON_INTERPRET", "0") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.kernels", *sys.argv[1:]], {**os.environ})
    if options.keys:
        print(json.dumps([key for _, key in jobs()]))
    elif options.only:
        print(json.dumps(compile_all([job for job, _ in jobs(*options.only)])))
    else:
        known = {} if options.all else {entry["key"]: entry for entry in read()}
        todo = [job for job, key in jobs() if key not in known]
        known |= {entry["key"]: entry for entry in compile_all(todo)}
        entries = [known[key] for _, key in jobs()]
        print(table(entries))
        worse = regressions(read(), entries)
        if worse and not options.accept:
            raise SystemExit("\n".join(["worse than before (nothing is kept unless --accept):", *worse]))
        RESULTS.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


def read() -> list[Entry]:
    """The saved figures."""
    entries: list[Entry] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return entries


def regressions(before: list[Entry], after: list[Entry]) -> list[str]:
    """Kernels that take more of any resource than the saved figures say; of registers, over 5 % more."""
    known = {tuple(entry[name] for name in IDENTITY): entry for entry in before}
    lines = []
    for entry in after:
        old = known.get(tuple(entry[name] for name in IDENTITY), entry)
        for cost in COSTS:
            slack = 1.05 if cost == "registers" else 1.0
            if cost in old and entry[cost] > slack * old[cost]:
                name = " ".join(entry[part] for part in IDENTITY)
                lines.append(f"{name}: {cost} {old[cost]} -> {entry[cost]}")
    return lines


def jobs(kernel: str | None = None, model: str | None = None) -> Iterator[tuple[Job, str]]:
    """Every variant for every architecture -> its key."""
    from peregrine_kernels.aot.compile import ARCHITECTURES, variants

    for index, of_each in enumerate(zip(*map(variants, ARCHITECTURES), strict=True)):
        for capability, variant in zip(ARCHITECTURES, of_each, strict=True):
            if kernel in (None, variant.kernel) and model in (None, variant.model):
                yield (index, capability), key_of(variant, capability)


def key_of(variant: Any, capability: int) -> str:
    """Hash of the kernel's source, the helpers it calls, and all compile-time arguments."""
    from peregrine_kernels.aot.compile import specialization

    launch = variant.launch
    parts = (launch.kernel.cache_key, specialization(launch), launch.options, capability)
    named = (variant.kernel, variant.model, variant.shape, *parts)
    return hashlib.sha256(repr(named).encode()).hexdigest()[:16]


def compile_all(todo: list[Job]) -> list[Entry]:
    """Compiles the jobs in as many processes as this machine surely has cores."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        return list(pool.map(compile_one, todo, chunksize=4))


def compile_one(job: Job) -> Entry:
    """The figures of one job."""
    from peregrine_kernels.aot.compile import report, variants

    index, capability = job
    variant = list(variants(capability))[index]
    return {**report(variant, capability).as_dict(), "key": key_of(variant, capability)}


def table(entries: list[Entry]) -> str:
    """A table with a line for each compiled kernel."""
    header = (
        f"{'kernel':18}{'arch':7}{'model':15}{'shape':40}{'regs':>5}{'spill':>6}{'shared':>8}{'tensor':>7}{'loads':>9}"
    )
    lines = [header, "-" * len(header)]
    for e in entries:
        loads = f"{e['wide_loads']}+{e['narrow_loads']}"
        lines.append(
            f"{e['kernel']:18}{e['arch']:7}{e['model']:15}{e['shape']:40}{e['registers']:5}{e['spill_bytes']:6}"
            f"{e['shared_bytes']:8}{e['tensor_core_instructions']:7}{loads:>9}"
        )
    return "\n".join([*lines, "", "loads: of 128 bits + of less; registers and spilled bytes are a thread's"])


if __name__ == "__main__":
    main()
