"""Draws the figures of the README and of docs/guides/attention_maps.md.

    KERAS_BACKEND=jax python tools/figures.py --output docs/images

Trains a small Perceiver in a few minutes on numbers, which are given as a drawing in
one of many fonts, as beeps to count, and as a point cloud.
"""

import argparse
from pathlib import Path

import numpy as np
from common import check_backend

SIZE = 32
SAMPLE_RATE, NUM_SAMPLES = 4_000, 2_000
NUM_POINTS = 192


def main(arguments=None):
    options = parser().parse_args(arguments)
    check_backend()
    import matplotlib

    matplotlib.use("agg")  # to files, without a window
    import keras

    from keras_perceiver import attention_maps, visualization

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs, labels = examples(rng, options.examples)
    test = examples(rng, 200)
    example = int(np.flatnonzero(test[1] == 5)[0])
    together = trained(several_modalities(), inputs, labels, options.epochs, test)
    alone = trained(image_alone(), inputs["image"], labels, 2 * options.epochs, test)
    maps, image_maps = (
        attention_maps(
            model, {x.name: test[0][x.name][[example]] for x in model.inputs}
        )
        for model in (together, alone)
    )
    figures = {
        "overview": visualization.plot_architecture(together, test[0], example),
        "attention": visualization.plot_attention(image_maps),
        "attention_points": visualization.plot_attention(
            maps, cross_attends=[2], modality="points"
        ),
        "entropy": visualization.plot_entropy(image_maps),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = options.output / f"{name}.png"
        figure.savefig(path, dpi=150)
        print(f"written: {path}")


def parser(description=__doc__, epochs=12):
    """Returns the parser of the command line, with the default number of epochs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/images"),
        help="folder of the figures; default: docs/images",
    )
    parser.add_argument("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    parser.add_argument("--examples", type=int, default=2_000, help="default: 2000")
    return parser


def several_modalities():
    """Returns a classifier of numbers with three modalities."""
    import keras_perceiver as kp

    modalities = {
        "image": kp.Image((SIZE, SIZE, 1), num_bands=8),
        "sound": kp.Audio(NUM_SAMPLES, SAMPLE_RATE, patch_size=40, num_bands=8),
        "points": kp.PointCloud(NUM_POINTS, num_bands=8, max_resolution=16),
    }
    dropout = dict.fromkeys(modalities, 0.3)  # learns to use each of them
    return _classifier(kp.ByteArray(modalities, modality_dropout=dropout), 16)


def image_alone():
    """Returns a classifier of drawings of numbers."""
    import keras_perceiver as kp

    # Projected, so that patches are as wide as their positions.
    image = kp.Image((SIZE, SIZE, 1), patch_size=2, num_bands=4, projection_dim=16)
    return _classifier(image, num_latents=8)


def _classifier(modality, num_latents):
    import keras_perceiver as kp

    encoder = kp.Perceiver(
        modality,
        num_latents=num_latents,
        latent_dim=64,
        num_blocks=3,
        num_self_attends_per_block=2,
        self_attend=kp.SelfAttend(num_heads=4),
    )
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
    return kp.PerceiverClassifier(encoder, 10, class_names=[*names, "nine"])


def trained(model, inputs, labels, epochs, test):
    """Trains a model, prints its test accuracy, and returns it."""
    import keras

    model.compile(keras.optimizers.AdamW(2e-3, clipnorm=1.0))
    model.fit(inputs, labels, batch_size=32, epochs=epochs, verbose=2)
    test_inputs, test_labels = test
    scores = model.evaluate(
        {x.name: test_inputs[x.name] for x in model.inputs},
        test_labels,
        verbose=0,
        return_dict=True,
    )
    print(f"test accuracy: {scores['accuracy']:.3f}")
    return model


def examples(rng, count):
    """Returns a dict of arrays of three modalities, and labels from 0 to 9."""
    from keras_perceiver.data import draw_letters

    seed = int(rng.integers(1_000))
    images, labels = draw_letters(count, SIZE, seed, characters="0123456789")
    inputs = {
        "image": images,
        "sound": np.stack([_beeps(rng, label) for label in labels]),
        "points": np.stack([_points(rng, image) for image in images]),
    }
    return {name: x.astype("float32") for name, x in inputs.items()}, labels


def _beeps(rng, label):
    """Returns a waveform with `label` beeps, `(NUM_SAMPLES,)`."""
    sample = np.arange(NUM_SAMPLES)
    is_on = (sample < label * 200) & (sample % 200 < 100)
    tone = 0.6 * np.sin(2 * np.pi * rng.uniform(500, 1500) * sample / SAMPLE_RATE)
    return np.where(is_on, tone, 0) + rng.normal(0, 0.03, NUM_SAMPLES)


def _points(rng, image):
    """Returns points in a number that stands upright, `(NUM_POINTS, 3)`."""
    rows, columns = np.nonzero(image[..., 0] > 0)
    chosen = rng.integers(len(rows), size=NUM_POINTS)
    plane = np.stack([columns[chosen], SIZE - 1 - rows[chosen]], axis=-1)
    plane = (plane + rng.uniform(0, 1, (NUM_POINTS, 2))) / SIZE * 2 - 1
    depth = rng.uniform(-0.15, 0.15, NUM_POINTS)
    return np.stack([plane[:, 0], depth, plane[:, 1]], axis=-1)


if __name__ == "__main__":
    main()
