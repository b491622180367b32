"""One run: data, fit, evaluation, files, export."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import keras

from keras_perceiver._checks import check_positive
from keras_perceiver.serving import (
    check_version,
    check_writable,
    export_for_serving,
    next_version,
)
from keras_perceiver.serving.card import installed_versions
from keras_perceiver.training.checkpoints import Checkpoints
from keras_perceiver.training.losses import SmoothedCrossentropy
from keras_perceiver.training.resume import SaveState, settings

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A run that anybody can repeat.

    Attributes:
        name: String, the name of the recipe's module.
        data: Callable `(batch_size, seed)`, or `(batch_size, seed, folder)` if the
            recipe reads a folder, that returns `keras_perceiver.data.Splits`.
        model: Callable `(num_classes)` that makes the model.
        optimizer: Callable `(num_steps)` that makes the optimizer of a run of so many
            steps.
        epochs: Integer, passes over the training data.
        batch_size: Integer, examples per training step.
        label_smoothing: Float in `[0, 1)`, see `SmoothedCrossentropy`.
        reads_folder: Boolean, whether the data are in a folder that the user names.
    """

    name: str
    data: Callable
    model: Callable
    optimizer: Callable
    epochs: int
    batch_size: int
    label_smoothing: float = 0.0
    reads_folder: bool = False


def train(
    recipe,
    run_folder,
    export_folder,
    epochs=None,
    batch_size=None,
    seed=0,
    precision="float32",
    data_folder=None,
    save_every=500,
    keep=2,
    resume=False,
):
    """Trains, evaluates, saves and exports the model of a recipe.

    Writes `model.keras`, `metrics.json` and `history.png` to the run folder and a
    SavedModel to the next free version of the export folder. Whatever can be wrong with
    the arguments is found before the first step.

    While it trains, the folder `checkpoints` in the run folder holds its whole state:
    weights, optimizer, seeds, metrics, position in the data. It is saved at SIGTERM and
    SIGINT as well. With `resume` another process goes on from there, and ends with the
    weights of a run that never stopped.

    Args:
        recipe: `Recipe`.
        run_folder: Path of a folder without a `model.keras`; made where it is missing.
            To resume, the folder of the run that was interrupted.
        export_folder: Path of the folder that holds the numbered exports.
        epochs: Integer, passes over the training data. Defaults to the recipe's.
        batch_size: Integer, examples per training step. Defaults to the recipe's.
        seed: Integer, seed of weights, order, augmentation and dropout.
        precision: String, Keras dtype policy of the model, one of `PRECISIONS`.
        data_folder: Path of the data, for recipes that read a folder.
        save_every: Integer, training steps between two checkpoints.
        keep: Integer, number of checkpoints that stay.
        resume: Boolean, whether to go on from the newest checkpoint in the run folder
            that is whole. Where there is none, training begins at the beginning.

    Returns:
        Dict of what is in `metrics.json`, with the paths `model` and `export`. Of a model
        over several modalities it has `test_accuracy_without`, one accuracy by the name
        of each modality that is then missing.

    Raises:
        ValueError: if a number is not positive, if the precision is unknown, if
            there is a data folder where none is read, or none where one is, or if the
            checkpoint is of another configuration.
        NonFiniteLossError: if the loss becomes NaN or infinite.
        TrainingInterruptedError: after SIGTERM or SIGINT, when the state is saved.
        FileNotFoundError: if the data folder is missing.
        FileExistsError: if the run folder holds a model, or, without `resume`,
            checkpoints.
        PermissionError: if a folder cannot be written.
        ImportError: if matplotlib is not installed.
    """
    epochs = recipe.epochs if epochs is None else epochs
    batch_size = recipe.batch_size if batch_size is None else batch_size
    check_positive(
        epochs=epochs, batch_size=batch_size, save_every=save_every, keep=keep
    )
    if precision not in PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {PRECISIONS}. Received: "
            f"precision={precision!r}. Choose one of them."
        )
    if (data_folder is None) == recipe.reads_folder:
        needs = "needs a" if recipe.reads_folder else "reads no"
        raise ValueError(
            f"The recipe {recipe.name!r} {needs} `data_folder`. Received: "
            f"data_folder={data_folder!r}. "
            + (
                "Name the folder that holds train/ and test/ (--data DIR)."
                if recipe.reads_folder
                else "Leave it out."
            )
        )
    run_folder = Path(run_folder)
    checkpoints = Checkpoints(run_folder / CHECKPOINTS, keep)
    _check_unused(run_folder, checkpoints, resume)
    check_writable("run_folder", run_folder)
    check_version(export_folder, next_version(export_folder))
    plt = _pyplot()

    previous_policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    try:
        folder = (data_folder,) if recipe.reads_folder else ()
        splits = recipe.data(batch_size, seed, *folder)
        model = recipe.model(len(splits.class_names))
    finally:
        keras.config.set_dtype_policy(previous_policy)
    steps_per_epoch = int(splits.train.cardinality())
    if steps_per_epoch < 1:
        raise ValueError(
            "`batch_size` must not exceed the number of training examples. Received: "
            f"batch_size={batch_size}, which leaves no full batch. Make it smaller."
        )
    model.compile(
        optimizer=recipe.optimizer(epochs * steps_per_epoch),
        loss=SmoothedCrossentropy(recipe.label_smoothing),
        metrics=["accuracy"],
    )
    configuration = {
        "recipe": recipe.name,
        "backend": keras.backend.backend(),
        "precision": precision,
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "class_names": splits.class_names,
        "model": settings(model),
        "optimizer": settings(model.optimizer),
        "loss": settings(model.loss),
    }
    state = SaveState(checkpoints, configuration, save_every, steps_per_epoch)
    if resume:
        state.restore(model, splits.validation.take(1))
    _fit(model, splits, state, epochs, steps_per_epoch)
    seconds = state.seconds
    test = model.evaluate(splits.test, return_dict=True, verbose=0)
    without = _accuracy_without_each(model, splits.test)

    model_path = run_folder / "model.keras"
    _replace(model_path, model.save)
    metrics = {
        "recipe": recipe.name,
        "backend": keras.backend.backend(),
        "precision": precision,
        "seed": seed,
        "class_names": splits.class_names,
        "parameters": model.count_params(),
        "epochs": epochs,
        "batch_size": batch_size,
        "train_seconds": round(seconds, 2),
        "examples_per_second": round(
            epochs * steps_per_epoch * batch_size / seconds, 1
        ),
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        **({"test_accuracy_without": without} if without else {}),
        "versions": installed_versions(),
    }
    text = json.dumps(metrics, indent=2) + "\n"
    _replace(run_folder / "metrics.json", lambda path: path.write_text(text))
    _replace(
        run_folder / "history.png",
        lambda path: _plot(plt, state.history, metrics, path),
    )
    export = export_for_serving(
        model, export_folder, labels=splits.class_names, metrics=metrics
    )
    # Only now: until here a resumed run could still do what is left.
    shutil.rmtree(checkpoints.folder, ignore_errors=True)
    return {**metrics, "model": model_path, "export": export}


def _check_unused(run_folder, checkpoints, resume):
    """Refuses a folder whose content would be lost."""
    found = checkpoints.paths()
    if found and not resume:
        raise FileExistsError(
            "The checkpoints of another run are never overwritten. Received: "
            f"run_folder={str(run_folder)!r}, which holds {found[0].name}. Resume that "
            "run (--resume), or choose another folder."
        )
    if not found and (run_folder / "model.keras").exists():
        raise FileExistsError(
            "A trained model is never overwritten. Received: "
            f"run_folder={str(run_folder)!r}, which holds a model.keras. "
            "Choose another folder."
        )


def _fit(model, splits, state, epochs, steps_per_epoch):
    """Trains from the step at which the state is."""

    def fit(first_epoch, epochs, num_done):
        model.fit(
            # One iterator for all epochs: to start one takes longer than a small epoch.
            splits.epochs(first_epoch, epochs).skip(num_done),
            steps_per_epoch=steps_per_epoch - num_done,
            validation_data=splits.validation,
            initial_epoch=first_epoch,
            epochs=epochs,
            callbacks=[state],
        )

    epoch, num_done = divmod(state.step, steps_per_epoch)
    with state.signals():
        if num_done:  # the rest of an epoch
            epoch += 1
            fit(epoch - 1, epoch, num_done)
        if epoch < epochs:
            fit(epoch, epochs, 0)


def _accuracy_without_each(model, dataset):
    """Returns the accuracy with one modality missing in all examples, by its name.

    Empty if there is one modality only; those without a mask cannot be missing.
    """
    modalities = model.encoder.byte_array.modalities
    if len(modalities) == 1:
        return {}

    def without(mask_name):
        return dataset.map(
            lambda inputs, labels: (
                {**inputs, mask_name: inputs[mask_name] & False},
                labels,
            )
        )

    return {
        name: model.evaluate(without(f"{name}_mask"), return_dict=True, verbose=0)[
            "accuracy"
        ]
        for name, modality in modalities.items()
        if modality.use_mask
    }


def _pyplot():
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "The plot of a run needs matplotlib, which is not installed. "
            'Install it with `pip install "keras_perceiver[demo]"`.'
        ) from error
    matplotlib.use("agg")  # a file, no window
    import matplotlib.pyplot as plt

    return plt


def _replace(path, write):
    """Writes a file under another name first, so that it is never there by half."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    write(unfinished)
    os.replace(unfinished, path)


def _plot(plt, history, metrics, path):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        epochs = range(1, len(history[name]) + 1)
        axis.plot(epochs, history[name], label="train")
        axis.plot(epochs, history[f"val_{name}"], label="validation")
        test = metrics[f"test_{name}"]
        axis.axhline(test, color="grey", linestyle=":", label=f"test {test:.4f}")
        axis.set(xlabel="epoch", ylabel=name)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    figure.suptitle(
        f"{metrics['recipe']} on {metrics['backend']}, seed {metrics['seed']}"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
