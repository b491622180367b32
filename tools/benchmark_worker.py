"""A single measurement of benchmark.py, in a separate process.

    python tools/benchmark_worker.py '{"work": "tiny", "mode": "forward", ...}'

The argument is a task of benchmark.py as JSON. Prints the measurement as JSON.
"""

import json
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import benchmark_peers

# A 224 x 224 image: overrides of the preset "imagenet".
IMAGE_WORKS = {
    "imagenet": {},
    "one_cross_attend": {"num_cross_attends": 1},
    # To test this program.
    "tiny": {"num_latents": 32, "latent_dim": 64, "num_blocks": 2},
}
# Other presets, which the peers lack, and their number of elements.
OTHER_WORKS = {
    "audioset_raw_video": 13_024,
    "modelnet40": 200_000,
}
# Input pipelines to measure, and their examples per batch.
PIPELINES = {"digits": 64, "images_64": 32}
# Inputs of the sweep that are generated. Others repeat them.
ROWS = 3_136


# The counts of tests/models/test_presets.py for other models. That of perceiver-pytorch
# is larger than the paper's, but measured by the paper's FLOPs.
PAPER_GFLOPS = {"imagenet": 706.28, "one_cross_attend": 403.97, "tiny": 1.0}


def measure(task):
    """Returns the measurement of a task as a dict."""
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
    """Times repeated calls, each of which processes `per` items."""
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
    """Times a batch of an input pipeline, or a training step on it."""
    with tempfile.TemporaryDirectory() as folder:
        splits, model = _digits_work() if task["work"] == "digits" else _images(folder)
        # More epochs than the calls need.
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
    """Returns the data and the compiled model of the recipe `digits`."""
    from keras_perceiver import recipes

    recipe = recipes.get("digits")
    splits = recipe.splits(PIPELINES["digits"])
    model = recipe.build_task(recipe.model(), splits)
    return splits, _compiled(model, recipe.build_optimizer(1000))


def _images(folder):
    """Returns augmented images of 64 x 64 pixels from files, and a model."""
    import keras
    import numpy as np

    import keras_perceiver as kp
    from keras_perceiver import ImagePreprocessor
    from keras_perceiver.data import folder_splits, image_augmentation

    rng = np.random.default_rng(0)
    for part, num_images in (("train", 200), ("test", 1)):
        for name in ("first", "second"):
            path = Path(folder) / part / name
            path.mkdir(parents=True)
            for i in range(num_images):
                pixels = rng.integers(0, 256, (64, 64, 3))
                keras.utils.save_img(path / f"{i}.png", pixels, scale=False)
    files = ImagePreprocessor((64, 64, 3))
    splits = folder_splits(
        folder, files, PIPELINES["images_64"], 0, image_augmentation()
    )
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
    """Returns a callable that multiplies square float32 matrices, to measure peak speed."""
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


def example(model, num_inputs):
    """Returns a random example of the model's inputs, and its label."""
    import numpy as np

    rng = np.random.default_rng(0)
    inputs = {
        # Point clouds may have any number of points.
        name: rng.uniform(-1, 1, (1, num_inputs, 3)).astype("float32")
        if None in modality.input_shape
        else modality.random_inputs(rng, 1)
        for name, modality in model.encoder.byte_array.modalities.items()
    }
    is_dict = isinstance(model.input, dict)
    return inputs if is_dict else next(iter(inputs.values())), np.array([7])


def _model(task):
    """Returns a callable for a forward pass or training step, and the paper's GFLOPs."""
    times = 3 if task["mode"] == "train" else 1
    if task.get("layers") in (None, "keras"):
        model, x, y, gflops = _keras_model(task)
        if task["mode"] == "train":
            return lambda: model.train_on_batch(x, y), times * gflops
        return lambda: model.predict_on_batch(x), times * gflops
    return benchmark_peers.torch_step(task), times * PAPER_GFLOPS[task["work"]]


def _keras_model(task):
    """Returns a compiled model, an example, its label, and GFLOPs of a forward pass."""
    import keras

    import keras_perceiver as kp

    # `keras.utils.set_random_seed` would load TensorFlow on every backend.
    random.seed(0)
    keras.config.set_dtype_policy(task.get("policy", "float32"))
    work = task["work"]
    if task.get("layers") == "keras":
        model = benchmark_peers.keras_layers_model(**IMAGE_WORKS[work])
        x, y = benchmark_peers.image_example()
        gflops = PAPER_GFLOPS[work]
    else:
        if task.get("plain"):
            _force_the_plain_form()
        model = kp.PerceiverClassifier.from_preset(
            work if work in OTHER_WORKS else "imagenet",
            use_remat=task.get("use_remat", False),
            **IMAGE_WORKS.get(work, {}),
        )
        x, y = example(model, task["num_inputs"])
        gflops = kp.flops(model, task["num_inputs"]) / 1e9
    model.compile(
        keras.optimizers.SGD(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model, x, y, gflops


def _force_the_plain_form():
    """Stores all keys, values and scores in memory."""
    from keras_perceiver.layers.attention import use_kernel
    from keras_perceiver.layers.attention_block import use_absorbed_projections

    # Until the process exits.
    use_kernel("plain").__enter__()
    use_absorbed_projections(False).__enter__()


def _cross_attend(task):
    """Returns a callable for a cross-attend of the paper's widths, and its GFLOPs."""
    import keras

    import keras_perceiver as kp

    # `keras.utils.set_random_seed` would load TensorFlow on every backend.
    random.seed(0)
    keras.config.set_dtype_policy(task.get("policy", "float32"))
    if task.get("plain"):
        _force_the_plain_form()
    num_inputs = task["num_inputs"]
    layer = kp.CrossAttend(num_heads=1)
    layer.build((None, 512, 1024), (None, num_inputs, 261))
    latents = keras.random.normal((1, 512, 1024), seed=0)
    # Rows are repeated, since the random generators of some backends need several times
    # the memory of their output.
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
    print(json.dumps(measure(json.loads(sys.argv[1]))))
