"""Plots to files."""


def pyplot():
    """Returns `matplotlib.pyplot`, set up to write files.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib, which is not installed. "
            'Install it with `pip install "keras_perceiver[demo]"`.'
        ) from error
    matplotlib.use("agg")  # a file, no window
    import matplotlib.pyplot as plt

    return plt


def plot_history(plt, history, metrics, score, path):
    """Plots the loss and the score of every epoch, and of the test.

    Args:
        plt: What `pyplot` returns.
        history: Dict of lists, one value an epoch.
        metrics: Dict, as in `metrics.json`.
        score: String, the score's name in both.
        path: Path of the image.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, name in zip(axes, ("loss", score), strict=True):
        epochs = range(1, len(history[name]) + 1)
        marker = "o" if len(epochs) == 1 else None
        axis.plot(epochs, history[name], marker=marker, label="train")
        axis.plot(epochs, history[f"val_{name}"], marker=marker, label="validation")
        test = metrics[f"test_{name}"]
        axis.axhline(test, color="grey", linestyle=":", label=f"test {test:.4f}")
        axis.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    figure.suptitle(
        f"{metrics['recipe']} on {metrics['backend']}, seed {metrics['seed']}"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
