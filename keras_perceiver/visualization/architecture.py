"""Figure of a model's layers."""

from keras_perceiver._matplotlib import matplotlib
from keras_perceiver.layers import CrossAttend
from keras_perceiver.models import Task


def plot_architecture(model):
    """Draws a model: what it reads, its layers in order, their widths, what is shared.

    Layers that share their weights have one color and one number.

    Args:
        model: `Perceiver` or a task, such as `PerceiverClassifier`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    plt = matplotlib("pyplot")
    encoder = model.encoder if isinstance(model, Task) else model
    trunk = encoder.iterative_attention
    layers = trunk.sequence()
    num_latents = encoder.latent_array.num_latents
    latent_dim = encoder.latent_array.latent_dim
    own = [*trunk.cross_attends, *trunk.latent_transformers]
    numbers = {id(layer): i for i, layer in enumerate(own)}

    width = len(layers) + 2 + isinstance(model, Task)
    figure, axis = plt.subplots(figsize=(1.4 * width, 3.4), layout="constrained")

    def box(x, y, text, color, height=0.8):
        patch = plt.Rectangle(
            (x - 0.42, y - height / 2), 0.84, height, fc=color, ec="k"
        )
        axis.add_patch(patch)
        axis.text(x, y, text, ha="center", va="center", fontsize=9)

    def arrow(start, end):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 0.9})

    box(0, 0, f"latent array\n{num_latents:,} x {latent_dim:,}", "#dddddd")
    colors = plt.get_cmap("Pastel1")
    for x, layer in enumerate(layers, start=1):
        color = colors(numbers[id(layer)] % colors.N)
        weights = f"weights {numbers[id(layer)] + 1}"
        arrow((x - 0.58, 0), (x - 0.42, 0))
        if isinstance(layer, CrossAttend):
            heads = _count(layer.num_heads, "head")
            box(x, 0, f"cross-attend\n{heads}\n{weights}", color)
            arrow((x, 1.2), (x, 0.4))
        else:
            first = layer.self_attends[0]
            number = _count(len(layer.self_attends), "self-attend")
            heads = _count(first.num_heads, "head")
            box(x, 0, f"{number}\n{heads}\n{weights}", color)
    if isinstance(model, Task):
        x = len(layers) + 1
        arrow((x - 0.58, 0), (x - 0.42, 0))
        box(x, 0, f"mean, linear\n{model.num_classes:,} classes", "#dddddd")

    length = (
        "any number" if None in _lengths(encoder) else f"{sum(_lengths(encoder)):,}"
    )
    names = " + ".join(
        f"{name} ({type(modality).__name__})"
        for name, modality in encoder.byte_array.modalities.items()
    )
    last = max(x for x, y in enumerate(layers, 1) if isinstance(y, CrossAttend))
    axis.add_patch(plt.Rectangle((0.5, 1.2), last, 0.5, fc="#cfe8cf", ec="k"))
    dim = trunk.cross_attends[0].key.kernel.shape[0]
    axis.text(
        0.5 + last / 2,
        1.45,
        f"byte array: {length} x {dim:,}   {names}"
        if last > 3
        else f"byte array\n{length} x {dim:,}",
        ha="center",
        va="center",
        fontsize=8,
    )
    axis.set_title(f"{model.name}: {names}, {model.count_params():,} parameters")
    axis.set(xlim=(-0.6, width - 1.3), ylim=(-0.7, 1.9))
    axis.set_axis_off()
    return figure


def _lengths(encoder):
    return [modality.num_inputs for modality in encoder.byte_array.modalities.values()]


def _count(number, noun):
    return f"{number} {noun}{'s' * (number != 1)}"
