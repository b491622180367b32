"""Measures time and memory of this package and its peers.

    python tools/benchmark.py --work one_cross_attend --repetitions 3
    python tools/benchmark.py --sweep
    python tools/benchmark.py --pipeline

Every measurement runs in a separate process. Competitors take turns, so that other load
on the machine affects all of them alike. Prints a table, and writes a CSV and a PNG.
The peers are installed by `pip install "keras_perceiver[benchmark]"`.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmark_worker import IMAGE_WORKS, OTHER_WORKS, PIPELINES, ROWS
from common import BACKENDS, markdown_table

WORKER = Path(__file__).with_name("benchmark_worker.py")
WORKS = (*IMAGE_WORKS, *OTHER_WORKS)
SWEEP = (12_544, 50_176, 200_704, 1_003_520)
FIELDS = (
    "competitor",
    "work",
    "mode",
    "num_inputs",
    "first_call_seconds",
    "seconds",
    "peak_gib",
    "gflops",
    "of_matmul_peak",
)
_OURS = [f"ours {backend}" for backend in BACKENDS]


def competitors():
    """Returns a dict from names to pairs of backend and worker options."""
    ours = {f"ours {b}": (b, {}) for b in BACKENDS}
    ours |= {f"ours {b} bfloat16": (b, {"policy": "mixed_bfloat16"}) for b in BACKENDS}
    ours |= {f"ours {b} remat": (b, {"use_remat": True}) for b in BACKENDS}
    ours |= {f"plain form {b}": (b, {"plain": True}) for b in BACKENDS}
    keras_layers = {f"keras layers {b}": (b, {"layers": "keras"}) for b in BACKENDS}
    peers = {
        "transformers": ("torch", {"layers": "transformers"}),
        "perceiver-pytorch": ("torch", {"layers": "perceiver-pytorch"}),
    }
    return {**ours, **keras_layers, **peers}


def main():
    options = parser().parse_args()
    if options.pipeline:
        tasks = _pipeline_tasks(options)
    else:
        tasks = _sweep_tasks(options) if options.sweep else model_tasks(options)
    rows = _measure(tasks, options.repetitions)
    options.output.mkdir(parents=True, exist_ok=True)
    name = "sweep" if options.sweep else "-".join(options.work)
    if options.pipeline:
        name = "pipeline"
    _write_csv(options.output / f"{name}.csv", rows)
    medians = _medians(rows)
    if options.pipeline:
        print(_pipeline_table(medians))
        print(f"\nwritten: {options.output / name}.csv")
        return
    _plot(options.output / f"{name}.png", medians, options.sweep)
    print(_table(medians))
    print(f"\nwritten: {options.output / name}.csv, {options.output / name}.png")


def parser():
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work",
        nargs="+",
        choices=WORKS,
        default=["one_cross_attend"],
        help=f"{', '.join(OTHER_WORKS)}: only our models, since the peers have none",
    )
    parser.add_argument(
        "--competitors",
        nargs="+",
        metavar="NAME",
        choices=competitors(),
        default=[*(f"ours {b}" for b in BACKENDS), "transformers"],
        help=f"any of: {', '.join(competitors())}",
    )
    parser.add_argument("--modes", nargs="+", default=["forward", "train"])
    parser.add_argument("--repetitions", type=int, default=3, help="default: 3")
    parser.add_argument("--calls", type=int, default=3, help="timed calls per process")
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="one cross-attend over increasing numbers of inputs",
    )
    parser.add_argument(
        "--pipeline",
        action="store_true",
        help="examples per second of input pipelines, and of training with them: "
        "`digits`, and a small model on image files of 64 x 64 pixels",
    )
    parser.add_argument(
        "--batches", type=int, default=20, help="batches per timed call with --pipeline"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        default=SWEEP,
        help=f"numbers of inputs of the sweep, multiples of {ROWS:,}",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    return parser


def model_tasks(options):
    tasks = []
    for work in options.work:
        backends = {competitors()[name][0] for name in options.competitors}
        for name in sorted(backends):
            tasks.append(
                {
                    "competitor": f"matmul {name}",
                    "backend": name,
                    "mode": "matmul",
                    "calls": options.calls + 2,
                }
            )
        for name in options.competitors:
            backend, settings = competitors()[name]
            if work in OTHER_WORKS and "layers" in settings:
                continue
            for mode in options.modes:
                tasks.append(
                    {
                        "competitor": name,
                        "backend": backend,
                        "work": work,
                        "mode": mode,
                        "num_inputs": OTHER_WORKS.get(work, 224 * 224),
                        "calls": options.calls,
                        **settings,
                    }
                )
    return tasks


def _sweep_tasks(options):
    return [
        {
            "competitor": name,
            "backend": competitors()[name][0],
            "mode": mode,
            "num_inputs": num_inputs,
            "calls": options.calls,
            "work": "cross-attend",
            **competitors()[name][1],
        }
        for num_inputs in options.sizes
        for name in options.competitors
        if "layers" not in competitors()[name][1]
        for mode in options.modes
    ]


def _pipeline_tasks(options):
    names = [name for name in options.competitors if name in _OURS]
    return [
        {
            "competitor": name,
            "backend": competitors()[name][0],
            "mode": mode,
            "num_inputs": batch_size,
            "calls": options.calls,
            "batches": options.batches,
            "work": work,
        }
        for work, batch_size in PIPELINES.items()
        for mode in ("pipeline", "consume")
        # The pipeline is the same on all backends.
        for name in (names[:1] if mode == "pipeline" else names)
    ]


def _pipeline_table(rows):
    """Returns a Markdown table of pipelines against training."""
    speeds = {
        (row["work"], row["mode"], row["competitor"]): row["num_inputs"]
        / row["seconds"]
        for row in rows
    }
    pipelines = {work: s for (work, mode, _), s in speeds.items() if mode == "pipeline"}
    lines = [
        ["Data", "Training", "Pipeline, examples/s", "Training, examples/s", "Ratio"],
    ]
    for (work, mode, competitor), speed in speeds.items():
        if mode == "consume":
            given = pipelines[work]
            numbers = [f"{given:,.0f}", f"{speed:,.0f}", f"{given / speed:.1f}"]
            lines.append([work, competitor, *numbers])
    return markdown_table(lines)


def _measure(tasks, repetitions):
    rows = []
    for i in range(repetitions):
        for j, task in enumerate(tasks):
            label = f"{task['competitor']}, {task['mode']}"
            print(
                f"[{i + 1}/{repetitions}, {j + 1}/{len(tasks)}] {label}",
                file=sys.stderr,
            )
            environment = {
                **os.environ,
                "KERAS_BACKEND": task["backend"],
                "TF_CPP_MIN_LOG_LEVEL": "3",
            }
            result = subprocess.run(
                [sys.executable, WORKER, json.dumps(task)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode:
                lines = result.stderr.strip().splitlines()
                sys.exit(f"error: {label} failed: {lines[-1] if lines else 'killed'}")
            row = task | json.loads(result.stdout.strip().splitlines()[-1])
            print(f"    {row['seconds']:.3f} s per call", file=sys.stderr)
            rows.append(row)
    return rows


def _medians(rows):
    """Returns the medians over the repetitions, one row per competitor and task."""
    groups = {}
    for row in rows:
        key = (row["competitor"], row.get("work"), row["mode"], row.get("num_inputs"))
        groups.setdefault(key, []).append(row)
    medians = []
    for group in groups.values():
        row = dict(group[0])
        for name in ("first_call_seconds", "seconds", "peak_gib"):
            row[name] = statistics.median(r[name] for r in group)
        medians.append(row)
    peaks = {
        row["backend"]: row["gflops"] / row["seconds"]
        for row in medians
        if row["mode"] == "matmul"
    }
    for row in medians:
        if row["mode"] != "matmul" and row["backend"] in peaks:
            speed = row["gflops"] / row["seconds"]
            row["of_matmul_peak"] = speed / peaks[row["backend"]]
    return medians


def _table(rows):
    header = [
        "Competitor",
        "Work",
        "Mode",
        "Inputs",
        "First call, s",
        "Call, s",
        "Peak memory, GiB",
        "GFLOP/s",
        "Of matmul peak",
    ]
    lines = [header]
    for row in rows:
        of_peak = row.get("of_matmul_peak")
        lines.append(
            [
                row["competitor"],
                row.get("work", ""),
                row["mode"],
                f"{row['num_inputs']:,}",
                f"{row['first_call_seconds']:.2f}",
                f"{row['seconds']:.3f}",
                f"{row['peak_gib']:.2f}",
                f"{row['gflops'] / row['seconds']:.0f}",
                "" if of_peak is None else f"{of_peak:.2f}",
            ]
        )
    return markdown_table(lines)


def _write_csv(path, rows):
    packages = ("keras", "tensorflow", "jax", "torch", "transformers", "numpy")
    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_cpu_flags()}",
        "versions": " ".join(f"{p}={_version(p)}" for p in packages),
    }
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*FIELDS, *machine], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _cpu_flags():
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return next((f for f in ("avx512f", "avx2") if f in flags), "unknown vectors")


def _plot(path, rows, is_sweep):
    import matplotlib

    matplotlib.use("agg")  # to a file, without a window
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    rows = [row for row in rows if row["mode"] != "matmul"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    labels = {"seconds": "seconds per call", "peak_gib": "peak memory, GiB"}
    for axis, (field, label) in zip(axes, labels.items(), strict=True):
        if is_sweep:
            names = dict.fromkeys((r["competitor"], r["mode"]) for r in rows)
            for name in names:
                line = [r for r in rows if (r["competitor"], r["mode"]) == name]
                x = [r["num_inputs"] for r in line]
                axis.plot(
                    x, [r[field] for r in line], marker="o", label=", ".join(name)
                )
            axis.set(
                xscale="log", yscale="log", xlabel="number of inputs", ylabel=label
            )
            sizes = sorted({r["num_inputs"] for r in rows})
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=20)
            axis.minorticks_off()
            axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.grid(alpha=0.3)
        else:
            names = [f"{r['competitor']}, {r['work']}, {r['mode']}" for r in rows]
            axis.barh(names, [r[field] for r in rows])
            axis.invert_yaxis()
            axis.set(xlabel=label)
    if is_sweep:
        # Through the slowest competitor at the largest size.
        last = max(rows, key=lambda row: (row["num_inputs"], row["seconds"]))
        slope = [last["seconds"] * size / last["num_inputs"] for size in sizes]
        axes[0].plot(sizes, slope, color="gray", ls=":", label="linear")
        axes[0].legend(fontsize=8)
    else:
        axes[1].set_yticks([])
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
