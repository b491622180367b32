"""Cost of more inputs and more layers for a Perceiver and a plain Transformer.

    KERAS_BACKEND=jax python tools/scaling_study.py

The layers of the Transformer (KerasHub's) process all inputs, so time and memory grow
with their square in each layer. Those of a Perceiver process the latents, so inputs
only matter in the cross-attends. Measures one image with increasing numbers of pixels,
then of layers. Every measurement runs in a separate process, which ends if it needs
more than --max-gib. Prints a table, and writes a CSV and a figure. Needs
`pip install "keras_perceiver[study]"`. An interrupted study continues where it stopped.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import check_backend, markdown_table
from study import run_all

MODELS = ("perceiver", "transformer")
SIDES = (16, 32, 64, 112, 224)
DEPTHS = (2, 4, 8, 16)
NUM_LATENTS, DIM, NUM_HEADS = 128, 256, 8
# The fixed number while the other one varies.
DEPTH, SIDE = 4, 64
NUM_CLASSES = 10
# Errors of JAX, TensorFlow and PyTorch if an array is too large to allocate.
_REFUSED = ("Out of memory", "OOM when allocating", "can't allocate memory")


def main(arguments=None):
    options = parser().parse_args(arguments)
    if options.worker:
        print(json.dumps(_worker(json.loads(options.worker))))
        return
    try:
        backend = check_backend()
    except ValueError as error:
        sys.exit(f"error: {error}")
    shapes = [(side, DEPTH) for side in options.sides]
    shapes += [(SIDE, depth) for depth in options.depths if depth != DEPTH]
    runs = [
        {
            "backend": backend,
            "mode": options.mode,
            "model": model,
            "inputs": side * side,
            "depth": depth,
        }
        for side, depth in shapes
        for model in MODELS
    ]
    path = options.output / f"scaling-{backend}-{options.mode}.csv"
    rows = run_all(path, runs, lambda run: _measure(run, options))
    print(markdown_table(_table(rows)))
    figure = path.with_suffix(".png")
    _plot(figure, rows, options.max_gib)
    print(f"\nwritten: {path}, {figure}")


def parser():
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        default=SIDES,
        help=f"of the image, in pixels; default: {' '.join(map(str, SIDES))}",
    )
    parser.add_argument(
        "--depths",
        type=int,
        nargs="+",
        default=DEPTHS,
        help=f"numbers of layers; default: {' '.join(map(str, DEPTHS))}",
    )
    parser.add_argument(
        "--mode",
        choices=("forward", "train"),
        default="train",
        help="a training step (default), or a prediction",
    )
    parser.add_argument(
        "--max-gib",
        type=float,
        default=12.0,
        help="memory limit of a measurement; default: 12",
    )
    parser.add_argument("--calls", type=int, default=3, help="timed calls; default: 3")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("studies"),
        help="folder for CSV and figure; default: studies",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def _measure(run, options):
    """Returns the measurement of a separate process, or that it ran out of memory."""
    task = {**run, "calls": options.calls}
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", json.dumps(task)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    too_large = {"parameters": "", "call_seconds": "", "peak_gib": "", "fits": False}
    most = 0.0
    while process.poll() is None:
        time.sleep(0.05)
        most = max(most, _resident_gib(process.pid))
        if most > options.max_gib:
            process.kill()
            process.communicate()
            return too_large
    output, errors = process.communicate()
    if process.returncode and any(text in errors for text in _REFUSED):
        return too_large
    if process.returncode:
        lines = errors.strip().splitlines()
        sys.exit(f"error: {run} failed: {lines[-1] if lines else 'killed'}")
    return json.loads(output.strip().splitlines()[-1])


def _resident_gib(pid):
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0  # the process has exited
    return pages * resource.getpagesize() / 2**30


def _worker(task):
    """Times calls of a model in this process."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    side = round(task["inputs"] ** 0.5)
    make = {"perceiver": _perceiver, "transformer": _transformer}[task["model"]]
    model = make(side, task["depth"])
    model.compile(
        keras.optimizers.SGD(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype("float32")
    y = np.zeros(1, "int32")

    def call():
        if task["mode"] == "train":
            result = model.train_on_batch(x, y)
        else:
            result = model.predict_on_batch(x)
        # JAX returns immediately, so the result is read to wait for it and its errors.
        if not np.isfinite(keras.ops.convert_to_numpy(result)).all():
            raise ValueError(f"The outputs must be finite. Received: {result}.")

    call()  # compiles
    seconds = []
    for _ in range(task["calls"]):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {
        "parameters": model.count_params(),
        "call_seconds": round(statistics.median(seconds), 4),
        "peak_gib": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3
        ),
        "fits": True,
    }


def _perceiver(side, depth):
    import keras_perceiver as kp

    encoder = kp.Perceiver(
        kp.Image((side, side, 3), num_bands=32),
        num_latents=NUM_LATENTS,
        latent_dim=DIM,
        num_blocks=2,
        num_self_attends_per_block=depth // 2,
        self_attend=kp.SelfAttend(num_heads=NUM_HEADS),
        share_weights=False,
    )
    return kp.PerceiverClassifier(encoder, NUM_CLASSES)


def _transformer(side, depth):
    """Projects every pixel with its position to `DIM`, then applies KerasHub's layers."""
    import keras
    import keras_hub

    import keras_perceiver as kp

    image = kp.Image((side, side, 3), num_bands=32)
    pixels = keras.Input((side, side, 3))
    x = keras.layers.Dense(DIM)(image(pixels))
    for _ in range(depth):
        x = keras_hub.layers.TransformerEncoder(
            DIM, NUM_HEADS, normalize_first=True, activation="gelu"
        )(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(pixels, keras.layers.Dense(NUM_CLASSES)(x))


def _fits(row):
    return str(row["fits"]) == "True"


def _table(rows):
    header = ["Inputs", "Layers", *(f"{m.capitalize()}: s, GiB" for m in MODELS)]
    cells = {}
    for row in rows:
        key = int(row["inputs"]), int(row["depth"])
        text = "does not fit"
        if _fits(row):
            seconds, memory = float(row["call_seconds"]), float(row["peak_gib"])
            text = f"{seconds:.3f}, {memory:.2f}"
        cells.setdefault(key, {})[row["model"]] = text
    return [
        header,
        *(
            [f"{m:,}", d, *(found[name] for name in MODELS)]
            for (m, d), found in cells.items()
        ),
    ]


def _plot(path, rows, max_gib):
    import matplotlib

    matplotlib.use("agg")  # to a file, without a window
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, 2, figsize=(10, 7.5), sharex="col", layout="constrained"
    )
    call = {"train": "training step", "forward": "prediction"}[rows[0]["mode"]]
    for column, (x_name, other, fixed, label) in enumerate(
        (
            ("inputs", "depth", DEPTH, f"inputs ({DEPTH} layers)"),
            ("depth", "inputs", SIDE * SIDE, f"layers ({SIDE * SIDE:,} inputs)"),
        )
    ):
        time_axis, memory_axis = axes[:, column]
        num_fitting = 0
        for model, marker in zip(MODELS, "os", strict=True):
            points = sorted(
                (int(row[x_name]), row)
                for row in rows
                if row["model"] == model and int(row[other]) == fixed
            )
            fitting = [(x, row) for x, row in points if _fits(row)]
            too_large = [x for x, row in points if not _fits(row)]
            num_fitting += len(fitting)
            for axis, field in ((time_axis, "call_seconds"), (memory_axis, "peak_gib")):
                axis.plot(
                    [x for x, _ in fitting],
                    [float(row[field]) for _, row in fitting],
                    marker=marker,
                    label=model.capitalize(),
                )
            if too_large:
                memory_axis.plot(
                    too_large,
                    [max_gib] * len(too_large),
                    "x",
                    color=memory_axis.lines[-1].get_color(),
                    markersize=9,
                    label=f"{model.capitalize()} does not fit",
                )
        memory_axis.axhline(max_gib, color="gray", linestyle=":", label="limit")
        time_axis.set_ylabel(f"seconds per {call}")
        if num_fitting:  # no logarithmic axis without data
            time_axis.set_yscale("log")
        memory_axis.set(
            xlabel=label, ylabel="peak memory, GiB", ylim=(0, 1.1 * max_gib)
        )
        if x_name == "inputs":
            memory_axis.set_xscale("log")
        for axis in (time_axis, memory_axis):
            axis.grid(alpha=0.3)
    handles, labels = memory_axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
