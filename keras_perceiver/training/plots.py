"""Plots to files."""

from keras_perceiver._matplotlib import matplotlib


def plot_history(history, metrics, score, path):
    """Plots the loss and the score of every epoch, and of the test.

    Args:
        history: Dict of lists, one value per epoch.
        metrics: Dict, as in `metrics.json`.
        score: String, the score's name in both.
        path: Path of the image.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    figure = matplotlib("figure").Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, ("loss", score), strict=True):
        epochs = range(1, len(history[name]) + 1)
        marker = "o" if len(epochs) == 1 else None
        axis.plot(epochs, history[name], marker=marker, label="train")
        axis.plot(epochs, history[f"val_{name}"], marker=marker, label="validation")
        test = metrics[f"test_{name}"]
        axis.axhline(test, color="gray", linestyle=":", label=f"test {test:.4f}")
        axis.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    figure.suptitle(
        f"{metrics['recipe']} on {metrics['backend']}, seed {metrics['seed']}"
    )
    figure.savefig(path, dpi=120)
