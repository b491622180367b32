"""Accuracy with permuted pixels: the paper's Table 2 at small scale.

    KERAS_BACKEND=jax python tools/permutation_study.py
    KERAS_BACKEND=jax python tools/permutation_study.py --recipe clipart --data DIR

Trains a Perceiver, a ResNet and a ViT of about equal size, with and without Fourier
features of the positions, on images and on images whose pixels are permuted by a fixed
permutation. Fourier features stay with their pixels, so that the neighbors of a pixel
can be inferred from them. ResNet and ViT are those of KerasHub, with the same data,
steps, batch size and optimizer. Prints a table, and writes a CSV and a figure.

Reference:
    [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.1, table 2.
"""

import argparse
import sys

import numpy as np
import study
from common import markdown_table

MODELS = ("Perceiver", "ResNet", "ViT")
POSITIONS = ("Fourier", "other")
# The positions of a model without Fourier features.
OTHER = {"Perceiver": "learned", "ResNet": "none", "ViT": "learned, of patches"}
_ORDER_SEED = 0


def main(arguments=None):
    options = parser().parse_args(arguments)
    runs = [
        {
            "model": model,
            "positions": positions,
            "pixels": pixels,
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "seed": seed,
        }
        for seed in options.seeds
        for model in options.models
        for positions in options.positions
        for pixels in ("raw", "permuted")
    ]
    path = options.output / f"permutation-{options.recipe}.csv"
    try:
        study.load_splits(options, 0)  # reports errors early
        rows = study.run_all(path, runs, lambda run: _run(options, run))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(f"\n{table(rows)}")
    plot(path.with_suffix(".png"), rows, options.recipe)
    print(f"\nwritten: {path}, {path.with_suffix('.png')}")


def parser():
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    study.add_arguments(parser, epochs=60)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--positions", nargs="+", default=POSITIONS, choices=POSITIONS)
    return parser


def _run(options, run):
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(run["seed"])
    splits = study.load_splits(options, run["seed"])
    shape = tuple(splits.train.element_spec[0].shape[1:])
    height, width, _ = shape
    order = np.arange(height * width)
    if run["pixels"] == "permuted":
        order = np.random.default_rng(_ORDER_SEED).permutation(order)
    use_fourier = run["positions"] == "Fourier"
    if run["model"] == "Perceiver":
        features = None  # the Perceiver adds its own
        model = _perceiver(shape, len(splits.class_names), order, use_fourier)
    else:
        features = fourier_features(shape) if use_fourier else None
        build = _resnet if run["model"] == "ResNet" else _vit
        channels = shape[2] + (features.shape[2] if use_fourier else 0)
        model = build((height, width, channels), len(splits.class_names))
    accuracy = study.fit_and_score(
        model, changed(splits, order, features), options.epochs
    )
    return {"parameters": model.count_params(), "accuracy": round(accuracy, 4)}


def fourier_features(shape):
    """Returns the Fourier features of every pixel, `(height, width, features)`."""
    import keras

    from keras_perceiver.layers import FourierPositionEncoding

    encoding = FourierPositionEncoding(_num_bands(shape), max_resolution=shape[:2])
    features = encoding(np.zeros((1, *shape[:2], 1), "float32"))
    return keras.ops.convert_to_numpy(features).reshape(*shape[:2], -1)


def changed(splits, order, features=None):
    """Returns splits with additional feature channels, and permuted pixels."""
    import tensorflow as tf

    def change(images, labels):
        height, width, _ = images.shape[1:]
        if features is not None:
            batch = tf.broadcast_to(features, (tf.shape(images)[0], *features.shape))
            images = tf.concat([images, batch], axis=-1)
        channels = images.shape[-1]
        pixels = tf.reshape(images, (-1, height * width, channels))
        pixels = tf.gather(pixels, order, axis=1)
        return tf.reshape(pixels, (-1, height, width, channels)), labels

    return splits._replace(
        train=splits.train.map(change),
        validation=splits.validation.map(change),
        test=splits.test.map(change),
        epoch=lambda number, num_done=0: splits.epoch(number, num_done).map(change),
    )


def _num_bands(shape):
    return max(shape[0] // 2, 2)


def _perceiver(shape, num_classes, order, use_fourier):
    import keras

    import keras_perceiver as kp
    from keras_perceiver.layers import FourierPositionEncoding, LearnedPositionEncoding

    class PermutedPositions(keras.layers.Layer):
        """Fourier features in the order of their pixels."""

        def __init__(self):
            super().__init__()
            self.inner = FourierPositionEncoding(_num_bands(shape), shape[:2])

        def build(self, inputs_shape):
            self.inner.build(inputs_shape)
            super().build(inputs_shape)

        def call(self, inputs):
            return keras.ops.take(self.inner(inputs), order, axis=-2)

        def compute_output_shape(self, inputs_shape):
            return self.inner.compute_output_shape(inputs_shape)

    encoding = PermutedPositions() if use_fourier else LearnedPositionEncoding(32)
    encoder = kp.Perceiver(
        kp.Image(shape, position_encoding=encoding),
        num_latents=32,
        latent_dim=96,
        num_blocks=2,
        num_self_attends_per_block=2,
        cross_attend=kp.CrossAttend(dropout=0.1),
        self_attend=kp.SelfAttend(num_heads=4, dropout=0.1),
    )
    return kp.PerceiverClassifier(encoder, num_classes)


def _resnet(shape, num_classes):
    import keras
    import keras_hub

    # KerasHub's stem downsamples an image by 4. Here it keeps the size of digits, and
    # halves drawings of 32 x 32.
    factor = 4 if shape[0] < 32 else 2
    inputs = keras.Input(shape)
    x = keras.layers.UpSampling2D(factor)(inputs)
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(factor * shape[0], factor * shape[1], shape[2]),
    )
    x = keras.layers.GlobalAveragePooling2D()(backbone(x))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x))


def _vit(shape, num_classes):
    import keras
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=shape,
        patch_size=shape[0] // 8 * 2 if shape[0] > 8 else 2,
        num_layers=3,
        num_heads=4,
        hidden_dim=80,
        mlp_dim=160,
        dropout_rate=0.1,
    )
    inputs = keras.Input(shape)
    class_token = backbone(inputs)[:, 0]
    return keras.Model(inputs, keras.layers.Dense(num_classes)(class_token))


def _label(model, positions):
    name = positions if positions == "Fourier" else OTHER[model]
    return f"{model} ({name})"


def table(rows):
    """Returns a Markdown table of the test accuracies in percent."""
    found = study.means(rows, ("model", "positions", "pixels"))
    parameters = {(row["model"], row["positions"]): row["parameters"] for row in rows}
    lines = [["Model (positions)", "Parameters", "Raw, %", "Permuted, %", "Difference"]]
    for key, count in parameters.items():
        (raw, raw_std, _), (other, other_std, _) = (
            found[(*key, pixels)] for pixels in ("raw", "permuted")
        )
        lines.append(
            [
                _label(*key),
                f"{int(count):,}",
                f"{100 * raw:.2f} ± {100 * raw_std:.2f}",
                f"{100 * other:.2f} ± {100 * other_std:.2f}",
                f"{100 * (other - raw):+.2f}",
            ]
        )
    return markdown_table(lines)


def plot(path, rows, recipe):
    """Plots mean, deviation and single runs of every model, on raw and permuted pixels."""
    from matplotlib import pyplot as plt

    found = study.means(rows, ("model", "positions", "pixels"))
    keys = list(dict.fromkeys((row["model"], row["positions"]) for row in rows))
    figure, axis = plt.subplots(figsize=(9, 4.2), layout="constrained")
    for pixels, offset, marker in (("raw", -0.2, "o"), ("permuted", 0.2, "s")):
        groups = [found[(*key, pixels)] for key in keys]
        places = np.arange(len(keys)) + offset
        bars = axis.errorbar(
            places,
            [100 * mean for mean, _, _ in groups],
            yerr=[100 * deviation for _, deviation, _ in groups],
            fmt=marker,
            markersize=9,
            capsize=5,
            label=f"{pixels} pixels",
        )
        color = bars.lines[0].get_color()
        for place, (mean, _, scores) in zip(places, groups, strict=True):
            beside = [place - 0.6 * offset] * len(scores)
            axis.plot(beside, 100 * np.array(scores), ".", color=color, alpha=0.6)
            axis.annotate(
                f"{100 * mean:.1f}",
                (place, 100 * mean),
                (-9 if offset < 0 else 9, -3),
                textcoords="offset points",
                ha="right" if offset < 0 else "left",
                fontsize=9,
            )
    for place in np.arange(1, len(keys)) - 0.5:
        axis.axvline(place, color="0.85", linewidth=1)
    names = [_label(*key).replace(" (", "\n(") for key in keys]
    axis.set_xticks(range(len(keys)), names)
    seeds = ", ".join(sorted({str(row["seed"]) for row in rows}))
    axis.set(
        xlim=(-0.5, len(keys) - 0.5),
        ylabel="test accuracy, %",
        title=f"{recipe}: mean, standard deviation and single runs, seeds {seeds}",
    )
    axis.margins(y=0.12)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, -0.32), ncols=2)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
