"""Measures time and memory of this package and of its peers, in one run.

    python tools/benchmark.py --work one_cross_attend --repetitions 3
    python tools/benchmark.py --sweep
    python tools/benchmark.py --pipeline

Every measurement is a process of its own; the competitors take turns, so that what else
the machine does hits all of them alike. Writes a CSV and a PNG, prints a table. The peers
come with `pip install "keras_perceiver[benchmark]"`.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import BACKENDS, markdown_table

# One 224 x 224 image: what replaces the settings of the preset "imagenet".
IMAGE_WORKS = {
    "imagenet": {},
    "one_cross_attend": {"num_cross_attends": 1},
    # For a try-out of this program.
    "tiny": {"num_latents": 32, "latent_dim": 64, "num_blocks": 2},
}
# Other presets, which the peers do not have, and their number of elements.
OTHER_WORKS = {
    "audioset_raw_video": 13_024,
    "modelnet40": 200_000,
}
WORKS = (*IMAGE_WORKS, *OTHER_WORKS)
# What input pipelines are measured for: examples a batch.
PIPELINES = {"digits": 64, "images_64": 32}
SWEEP = (12_544, 50_176, 200_704, 1_003_520)
# Inputs of the sweep that are generated; the others repeat them.
ROWS = 3_136
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
    """Returns name -> (backend, options of the worker)."""
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
    if options.worker:
        print(json.dumps(_worker(json.loads(options.worker))))
        return
    if options.pipeline:
        tasks = _pipeline_tasks(options)
    else:
        tasks = _sweep_tasks(options) if options.sweep else _model_tasks(options)
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
        help=f"{', '.join(OTHER_WORKS)}: our models only, the peers have none",
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
    parser.add_argument("--calls", type=int, default=3, help="timed calls a process")
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="one cross-attend over more and more inputs",
    )
    parser.add_argument(
        "--pipeline",
        action="store_true",
        help="examples a second of the input pipeline alone, against what training of "
        "`digits` and of a small model on images of 64 x 64 pixels in files takes in",
    )
    parser.add_argument(
        "--batches", type=int, default=20, help="batches of --pipeline in a timed call"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        default=SWEEP,
        help=f"numbers of inputs of the sweep, multiples of {ROWS:,}",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def _model_tasks(options):
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
        # The pipeline is the same whatever the backend.
        for name in (names[:1] if mode == "pipeline" else names)
    ]


def _pipeline_table(rows):
    """Returns the table of pipelines against training, in Markdown."""
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
                [sys.executable, __file__, "--worker", json.dumps(task)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode:
                lines = result.stderr.strip().splitlines()
                sys.exit(f"error: {label} failed: {lines[-1] if lines else 'killed'}")
            row = task | json.loads(result.stdout.strip().splitlines()[-1])
            print(f"    {row['seconds']:.3f} s a call", file=sys.stderr)
            rows.append(row)
    return rows


def _medians(rows):
    """One row a competitor, work, mode and size: medians over the repetitions."""
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

    matplotlib.use("agg")  # a file, no window
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
        # Through the slowest competitor with the most inputs.
        last = max(rows, key=lambda row: (row["num_inputs"], row["seconds"]))
        slope = [last["seconds"] * size / last["num_inputs"] for size in sizes]
        axes[0].plot(sizes, slope, color="gray", ls=":", label="linear")
        axes[0].legend(fontsize=8)
    else:
        axes[1].set_yticks([])
    figure.savefig(path, dpi=120)
    plt.close(figure)


# From here on: what happens in a process of one measurement.


def _worker(task):
    if task["mode"] == "matmul":
        call, gflops = _matmul(task["backend"]), 2 * 4096**3 / 1e9
    elif task["work"] in PIPELINES:
        return _pipeline(task)
    elif task["work"] == "cross-attend":
        call, gflops = _cross_attend(task)
    else:
        call, gflops = _model(task)
    return _timed(call, task, gflops)


def _timed(call, task, gflops, per=1):
    """Calls once, and as often as the task says; `per` things happen in a call."""
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    seconds = []
    for _ in range(task["calls"]):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {
        "first_call_seconds": first,
        "seconds": statistics.median(seconds) / per,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "gflops": gflops,
        "num_inputs": task.get("num_inputs", 224 * 224),
    }


def _pipeline(task):
    """Times a batch of an input pipeline, or a step that takes one in."""
    with tempfile.TemporaryDirectory() as folder:
        splits, model = _digits_work() if task["work"] == "digits" else _images(folder)
        # As many epochs as the calls take.
        batches = iter(splits.epochs(0, 10**6))
        if task["mode"] == "pipeline":

            def call():
                for _ in range(task["batches"]):
                    next(batches)

            return _timed(call, task, 0, task["batches"])
        again = type(splits.train).from_tensors(next(batches)).repeat()
        return _timed(
            lambda: model.fit(again, steps_per_epoch=task["batches"], verbose=0),
            *(task, 0, task["batches"]),
        )


def _digits_work():
    """Returns data and compiled model of the recipe `digits`."""
    from keras_perceiver import recipes

    recipe = recipes.get("digits")
    splits = recipe.splits(PIPELINES["digits"])
    model = recipe.build_task(recipe.model(), splits)
    return splits, _compiled(model, recipe.build_optimizer(1000))


def _images(folder):
    """Returns images of 64 x 64 pixels in files, changed at random, and a model."""
    import keras
    import numpy as np

    import keras_perceiver as kp
    from keras_perceiver import ImagePreprocessor
    from keras_perceiver.data import folder_splits, image_changes

    rng = np.random.default_rng(0)
    for part, num_images in (("train", 200), ("test", 1)):
        for name in ("first", "second"):
            path = Path(folder) / part / name
            path.mkdir(parents=True)
            for i in range(num_images):
                pixels = rng.integers(0, 256, (64, 64, 3))
                keras.utils.save_img(path / f"{i}.png", pixels, scale=False)
    files = ImagePreprocessor((64, 64, 3))
    splits = folder_splits(folder, files, PIPELINES["images_64"], 0, image_changes())
    encoder = kp.Perceiver(
        kp.Image((64, 64, 3), num_bands=16, patch_size=4),
        num_latents=64,
        latent_dim=128,
        num_blocks=2,
        num_self_attends_per_block=2,
        self_attend=kp.SelfAttend(num_heads=4),
    )
    model = kp.PerceiverClassifier(encoder, len(splits.class_names))
    return splits, _compiled(model, keras.optimizers.AdamW(1e-3))


def _compiled(model, optimizer):
    from keras_perceiver import SmoothedCrossentropy

    model.compile(optimizer, SmoothedCrossentropy(0.1))
    return model


def _matmul(backend):
    """Product of two square float32 matrices, the measure of what the machine can do."""
    import numpy as np

    a = np.random.default_rng(0).normal(size=(4096, 4096)).astype("float32")
    if backend == "torch":
        import torch

        a = torch.tensor(a)
        return lambda: a @ a
    if backend == "jax":
        import jax

        a = jax.numpy.asarray(a)
        product = jax.jit(lambda a: a @ a)
        return lambda: product(a).block_until_ready()
    import tensorflow as tf

    a = tf.constant(a)
    product = tf.function(lambda a: tf.matmul(a, a))
    return lambda: product(a)[0, 0].numpy()


def _data(model, num_inputs):
    """Returns one random example of what the model reads, and its label."""
    import numpy as np

    rng = np.random.default_rng(0)
    inputs = {
        # Clouds have any number of points.
        name: rng.uniform(-1, 1, (1, num_inputs, 3)).astype("float32")
        if None in modality.input_shape
        else modality.random_inputs(rng, 1)
        for name, modality in model.encoder.byte_array.modalities.items()
    }
    is_dict = isinstance(model.input, dict)
    return inputs if is_dict else next(iter(inputs.values())), np.array([7])


def _image():
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.normal(size=(1, 224, 224, 3)).astype("float32"), np.array([7])


def _model(task):
    """Returns a call of one forward pass or training step, and its paper GFLOPs."""
    times = 3 if task["mode"] == "train" else 1
    if task.get("layers") in (None, "keras"):
        model, x, y, gflops = _keras_model(task)
        if task["mode"] == "train":
            return lambda: model.train_on_batch(x, y), times * gflops
        return lambda: model.predict_on_batch(x), times * gflops
    return _torch_peer(task), times * _PAPER_GFLOPS[task["work"]]


# The counts of tests/models/test_presets.py, for models that are not ours.
# perceiver-pytorch's is larger than the paper's and is measured by the paper's work.
_PAPER_GFLOPS = {"imagenet": 706.28, "one_cross_attend": 403.97, "tiny": 1.0}


def _keras_model(task):
    """Returns a compiled model, an example, its label, and the forward pass's GFLOPs."""
    import keras

    import keras_perceiver as kp

    # keras.utils.set_random_seed would load TensorFlow, and its memory, on every backend.
    random.seed(0)
    keras.config.set_dtype_policy(task.get("policy", "float32"))
    work = task["work"]
    if task.get("layers") == "keras":
        model = _plain_keras_model(keras, kp, **IMAGE_WORKS[work])
        x, y = _image()
        gflops = _PAPER_GFLOPS[work]
    else:
        if task.get("plain"):
            _force_the_plain_form()
        model = kp.PerceiverClassifier.from_preset(
            work if work in OTHER_WORKS else "imagenet",
            use_remat=task.get("use_remat", False),
            **IMAGE_WORKS.get(work, {}),
        )
        x, y = _data(model, task["num_inputs"])
        gflops = kp.flops(model, task["num_inputs"]) / 1e9
    model.compile(
        keras.optimizers.SGD(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model, x, y, gflops


def _force_the_plain_form():
    """All keys, values and scores in memory."""
    from keras_perceiver.layers.attention import use_kernel
    from keras_perceiver.layers.attention_block import use_absorbed_projections

    # For the rest of this process.
    use_kernel("plain").__enter__()
    use_absorbed_projections(False).__enter__()


def _plain_keras_model(keras, kp, num_cross_attends=None, num_blocks=8, **settings):
    """The same model as one writes it with Keras' own layers."""
    num_latents = settings.get("num_latents", 512)
    latent_dim = settings.get("latent_dim", 1024)
    layers = keras.layers

    def block(num_heads, key_dim, width):
        return {
            "query_norm": layers.LayerNormalization(epsilon=1e-5),
            "inputs_norm": layers.LayerNormalization(epsilon=1e-5),
            "attention": layers.MultiHeadAttention(
                num_heads, key_dim, output_shape=width
            ),
            "mlp": [
                layers.LayerNormalization(epsilon=1e-5),
                layers.Dense(width, activation="gelu"),
                layers.Dense(width),
            ],
        }

    def run(block, query, inputs=None):
        normed = block["query_norm"](query)
        inputs = normed if inputs is None else block["inputs_norm"](inputs)
        query = query + block["attention"](normed, inputs)
        outputs = query
        for layer in block["mlp"]:
            outputs = layer(outputs)
        return query + outputs

    image = kp.Image((224, 224, 3), num_bands=64)
    pixels = keras.Input((224, 224, 3))
    inputs = image(pixels)
    latents = kp.LatentArray(num_latents, latent_dim)(inputs)
    reads = [block(1, inputs.shape[-1], latent_dim) for _ in range(2)]
    thoughts = [block(8, latent_dim // 8, latent_dim) for _ in range(6)]
    for i in range(num_blocks):
        if num_cross_attends is None or i < num_cross_attends:
            latents = run(reads[min(i, 1)], latents, inputs)
        for thought in thoughts:
            latents = run(thought, latents)
    logits = layers.Dense(1000, dtype="float32")(keras.ops.mean(latents, axis=1))
    return keras.Model(pixels, logits)


def _torch_peer(task):
    import torch

    torch.manual_seed(0)
    x, y = map(torch.tensor, _image())
    if task["layers"] == "transformers":
        model, forward = _transformers(x)
    else:
        model, forward = _perceiver_pytorch(task, x)
    if task["mode"] == "forward":
        model.eval()

        def call():
            with torch.inference_mode():
                forward().numpy()

        return call
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(forward(), y).backward()
        optimizer.step()

    return step


def _transformers(x):
    """Hugging Face's Perceiver IO with the paper's sizes: 8 x 6, one cross-attend."""
    from transformers import (
        PerceiverConfig,
        PerceiverForImageClassificationFourier,
    )

    config = PerceiverConfig(
        num_latents=512,
        d_latents=1024,
        num_blocks=8,
        num_self_attends_per_block=6,
        num_self_attention_heads=8,
        num_cross_attention_heads=1,
        attention_probs_dropout_prob=0.0,
        num_labels=1000,
        image_size=224,
    )
    model = PerceiverForImageClassificationFourier(config)
    x = x.permute(0, 3, 1, 2)
    return model, lambda: model(inputs=x).logits


def _perceiver_pytorch(task, x):
    from perceiver_pytorch import Perceiver

    model = Perceiver(
        num_freq_bands=64,
        depth=8,
        max_freq=224.0,
        input_channels=3,
        num_latents=512,
        latent_dim=1024,
        cross_heads=1,
        latent_heads=8,
        cross_dim_head=261,
        latent_dim_head=128,
        num_classes=1000,
        weight_tie_layers=True,
        self_per_cross_attn=6,
    )
    return model, lambda: model(x)


def _cross_attend(task):
    """One cross-attend of the paper's widths over any number of inputs."""
    import keras

    import keras_perceiver as kp

    # keras.utils.set_random_seed would load TensorFlow, and its memory, on every backend.
    random.seed(0)
    keras.config.set_dtype_policy(task.get("policy", "float32"))
    if task.get("plain"):
        _force_the_plain_form()
    num_inputs = task["num_inputs"]
    layer = kp.CrossAttend(num_heads=1)
    layer.build((None, 512, 1024), (None, num_inputs, 261))
    latents = keras.random.normal((1, 512, 1024), seed=0)
    # Repeated rows: the generators of some backends need several times the memory of
    # what they generate.
    rows = keras.random.normal((1, ROWS, 261), seed=1)
    inputs = keras.ops.tile(rows, (1, num_inputs // ROWS, 1))
    gflops = (
        2
        * layer.macs(512, num_inputs, 1024, 261)
        / 1e9
        * (3 if task["mode"] == "train" else 1)
    )
    backend = task["backend"]
    if backend == "tensorflow":
        return _tensorflow_layer(layer, latents, inputs, task["mode"]), gflops
    if backend == "jax":
        return _jax_layer(layer, latents, inputs, task["mode"]), gflops
    return _torch_layer(layer, latents, inputs, task["mode"]), gflops


def _tensorflow_layer(layer, latents, inputs, mode):
    import tensorflow as tf

    @tf.function
    def forward(latents, inputs):
        return layer(latents, inputs)

    @tf.function
    def train(latents, inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(latents, inputs) ** 2)
        weights = [weight.value for weight in layer.trainable_weights]
        return tape.gradient(loss, weights)[0]

    run = forward if mode == "forward" else train
    return lambda: run(latents, inputs).numpy()


def _jax_layer(layer, latents, inputs, mode):
    import jax

    weights = [weight.value for weight in layer.trainable_variables]

    def forward(weights, latents, inputs):
        return layer.stateless_call(weights, [], latents, inputs)[0]

    def loss(weights, latents, inputs):
        return (forward(weights, latents, inputs) ** 2).sum()

    run = jax.jit(forward if mode == "forward" else jax.grad(loss))
    return lambda: jax.block_until_ready(run(weights, latents, inputs))


def _torch_layer(layer, latents, inputs, mode):
    import torch

    def forward():
        with torch.inference_mode():
            layer(latents, inputs)

    def train():
        layer.zero_grad(set_to_none=True)
        (layer(latents, inputs) ** 2).sum().backward()

    return forward if mode == "forward" else train


if __name__ == "__main__":
    main()
