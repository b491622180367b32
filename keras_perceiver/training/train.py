"""One run: data, fit, evaluation, files, export."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras

from keras_perceiver._checks import check_positive
from keras_perceiver._files import check_writable, replace_file
from keras_perceiver._matplotlib import matplotlib
from keras_perceiver.distribution import check_equal, distribution_of
from keras_perceiver.models.losses import SmoothedCrossentropy
from keras_perceiver.models.metrics import Accuracy, MeanAveragePrecision
from keras_perceiver.serving import (
    check_serving,
    export_for_serving,
    file_signatures,
)
from keras_perceiver.serving.card import installed_versions
from keras_perceiver.training.callbacks import (
    EarlyStop,
    Measures,
    ValidateAverage,
    write_history,
)
from keras_perceiver.training.checkpoints import Checkpoints
from keras_perceiver.training.evaluate import evaluate, has_clips
from keras_perceiver.training.plots import plot_history
from keras_perceiver.training.resume import SaveState, settings
from keras_perceiver.training.schedules import accumulate_gradients, scale_learning_rate
from keras_perceiver.training.tracking import TrackingOptimizer

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
CHECKPOINTS = "checkpoints"
LOGS = "logs"
_SMOKE_BATCH_SIZE = 2
_SMOKE_STEPS = 3


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
        batch_size: Integer, examples per update of the weights.
        label_smoothing: Float in `[0, 1)`, see `SmoothedCrossentropy`.
        reads_folder: Boolean, whether the data are in a folder that the user names.
        default_folder: String, the folder where the user names none, or `None` for no
            such folder. `~` is the user's home.
        smoke: Callable `(batch_size, seed)` that returns `Splits` of mock data, of the
            shapes that `data` gives, without a download. `None` if `data` does that.
        files: Callable that returns what `keras_perceiver.data.read_folder` reads
            labelled folders with, as `tools/evaluate.py --folder` does; or `None`.
        is_multi_label: Boolean, whether an example has any number of labels: sigmoid
            cross-entropy and mean average precision in place of softmax and accuracy.
        ema_momentum: Float in `[0, 1)`: the model that is validated, tested and saved has
            the average of the weights, see `TrackingOptimizer`. `None` for the weights.
        accumulation_steps: Integer, parts in which a batch is read, one after the other,
            for the memory of one of them. Must divide `batch_size`.
        patience: Integer, see `EarlyStop`: epochs without a better validation score before
            the run ends; the best weights stay. `None` for all epochs and the last
            weights.
    """

    name: str
    data: Callable
    model: Callable
    optimizer: Callable
    epochs: int
    batch_size: int
    label_smoothing: float = 0.0
    reads_folder: bool = False
    default_folder: str | None = None
    smoke: Callable | None = None
    files: Callable | None = None
    is_multi_label: bool = False
    ema_momentum: float | None = None
    accumulation_steps: int = 1
    patience: int | None = None

    @property
    def score(self):
        """String, the name of what is validated, tested and best when large."""
        return "mean_average_precision" if self.is_multi_label else "accuracy"

    def folders(self, data_folder=None):
        """Returns the tuple of what `data` takes besides batch size and seed.

        Args:
            data_folder: Path of the folder that the user names, or `None`.

        Raises:
            ValueError: if there is a folder where none is read, or none where one is.
        """
        if not self.reads_folder:
            if data_folder is not None:
                raise ValueError(
                    f"The recipe {self.name!r} reads no `data_folder`. Received: "
                    f"data_folder={data_folder!r}. Leave it out."
                )
            return ()
        folder = _first(data_folder, self.default_folder)
        if folder is None:
            raise ValueError(
                f"The recipe {self.name!r} needs a `data_folder`. Received: "
                "data_folder=None. Name the folder that holds train/ and test/ "
                "(--data DIR)."
            )
        return (Path(folder).expanduser(),)

    def mock(self, data_folder=None):
        """Returns the callable `(batch_size, seed)` that makes data for a smoke test.

        Args:
            data_folder: `None`.

        Raises:
            ValueError: if there are none, or if the user named a folder.
        """
        if data_folder is not None:
            raise ValueError(
                "A smoke test reads no `data_folder`. Received: "
                f"data_folder={data_folder!r}. Leave it out."
            )
        if self.smoke is None and self.reads_folder:
            raise ValueError(
                "A smoke test needs mock data. Received: the recipe "
                f"{self.name!r}, which has none. Give it a `smoke`."
            )
        return self.smoke or self.data


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
    accumulation_steps=None,
    patience=None,
    smoke=False,
    distribution="auto",
    devices=None,
    learning_rate_factor=1.0,
):
    """Trains, evaluates, saves and exports the model of a recipe.

    Writes `model.keras`, `metrics.json`, `history.csv`, `history.png` and, for
    TensorBoard, `logs` to the run folder and a SavedModel to the next free version of the
    export folder. Whatever can be wrong with the arguments is found before the first
    step.

    While it trains, the folder `checkpoints` in the run folder holds its whole state:
    weights, optimizer, seeds, metrics, position in the data. It is saved at SIGTERM and
    SIGINT as well. With `resume` another process goes on from there, and ends with the
    weights of a run that never stopped. The number of devices may be another one then.

    Several processes that train together (see `keras_perceiver.distribution`) all call
    this with the same arguments, and see the same run folder. Process 0 writes it.

    Args:
        recipe: `Recipe`.
        run_folder: Path of a folder without a `model.keras`; made where it is missing.
            To resume, the folder of the run that was interrupted.
        export_folder: Path of the folder that holds the numbered exports.
        epochs: Integer, passes over the training data. Defaults to the recipe's.
        batch_size: Integer, examples per update of the weights, on all devices
            together. Defaults to the recipe's.
        seed: Integer, seed of weights, order, augmentation and dropout.
        precision: String, Keras dtype policy of the model, one of `PRECISIONS`.
        data_folder: Path of the data, for recipes that read a folder. Defaults to the
            recipe's, if it has one.
        save_every: Integer, training steps between two checkpoints.
        keep: Integer, number of checkpoints that stay.
        resume: Boolean, whether to go on from the newest checkpoint in the run folder
            that is whole. Where there is none, training begins at the beginning.
        accumulation_steps: Integer, parts in which a batch is read. Defaults to the
            recipe's.
        patience: Integer, epochs without a better score. Defaults to the recipe's.
        smoke: Boolean, whether to run all of this for three steps on the recipe's mock
            data, by default with two examples a part and device, and for one epoch: a
            test of the recipe, offline.
        distribution: String, an engine of `Distribution`, or a `Distribution`.
        devices: Integer, number of devices. Defaults to all that the engine finds.
        learning_rate_factor: Float, factor of the recipe's learning rate. For another
            batch size than the recipe's: the new one over the old one, or the root of
            that for LAMB. Devices alone ask for none.

    Returns:
        Dict of what is in `metrics.json`, with the paths `model` and `export` (of
        several processes, in that of process 0). The score
        is `test_accuracy`, or `test_mean_average_precision` with many labels an example.
        Of a model over several modalities there is `test_accuracy_without`, one accuracy
        by the name of each modality that is then missing.

    Raises:
        ValueError: if a number is not positive, if the precision is unknown, if
            there is a data folder where none is read, or none where one is, if the parts
            of a batch would differ, if the distribution is not possible, or if the
            checkpoint is of another configuration.
        NonFiniteLossError: if the loss becomes NaN or infinite.
        TrainingInterruptedError: after SIGTERM or SIGINT, when the state is saved.
        FileNotFoundError: if the data folder is missing.
        FileExistsError: if the run folder holds a model, or, without `resume`,
            checkpoints.
        PermissionError: if a folder cannot be written.
        ImportError: if matplotlib is not installed.
    """
    accumulation_steps = _first(accumulation_steps, recipe.accumulation_steps)
    check_positive(accumulation_steps=accumulation_steps)
    distribution = distribution_of(distribution, devices)
    if smoke:
        epochs = _first(epochs, 1)
        num_parts = accumulation_steps * distribution.num_replicas
        batch_size = _first(batch_size, _SMOKE_BATCH_SIZE * num_parts)
    epochs = _first(epochs, recipe.epochs)
    batch_size = _first(batch_size, recipe.batch_size)
    patience = _first(patience, recipe.patience)
    check_positive(
        epochs=epochs, batch_size=batch_size, save_every=save_every, keep=keep
    )
    if batch_size % accumulation_steps:
        raise ValueError(
            "`batch_size` must be divisible by `accumulation_steps`. Received: "
            f"batch_size={batch_size}, accumulation_steps={accumulation_steps}. Choose "
            f"a multiple of {accumulation_steps}."
        )
    # What is read at once: an update has `accumulation_steps` steps.
    step_size = batch_size // accumulation_steps
    distribution.check_batch_size(batch_size, accumulation_steps)
    if precision not in PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {PRECISIONS}. Received: "
            f"precision={precision!r}. Choose one of them."
        )
    if smoke:
        data, folders = recipe.mock(data_folder), ()
    else:
        data, folders = recipe.data, recipe.folders(data_folder)
    run_folder = Path(run_folder)
    is_writer = distribution.process_index == 0
    checkpoints = Checkpoints(run_folder / CHECKPOINTS, keep, not is_writer)
    _check_unused(run_folder, checkpoints, resume)
    check_writable("run_folder", run_folder)
    check_writable("export_folder", export_folder)
    check_serving()
    matplotlib("figure")  # fails before the training, not after it

    previous_policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    try:
        splits = data(step_size, seed, *folders)
        with distribution.scope():
            model = recipe.model(len(splits.class_names))
            model.class_names = splits.class_names
    finally:
        keras.config.set_dtype_policy(previous_policy)
    splits = distribution.splits(splits)
    if smoke:
        splits = _first_steps(splits, _SMOKE_STEPS * accumulation_steps)
    steps_per_epoch = int(splits.train.cardinality())
    if steps_per_epoch < 1:
        raise ValueError(
            "`batch_size` must not exceed the number of training examples. Received: "
            f"batch_size={batch_size}, which leaves no full batch. Make it smaller."
        )
    num_updates = max(epochs * steps_per_epoch // accumulation_steps, 1)
    with distribution.scope():
        inner_optimizer = recipe.optimizer(num_updates)
        scale_learning_rate(inner_optimizer, learning_rate_factor)
        accumulate_gradients(inner_optimizer, accumulation_steps)
        optimizer = TrackingOptimizer(inner_optimizer, recipe.ema_momentum)
        compile_classifier(
            model, optimizer, recipe.is_multi_label, recipe.label_smoothing
        )
        # Nothing of the devices, so that a run may go on with others.
        configuration = {
            "recipe": recipe.name,
            "backend": keras.backend.backend(),
            "precision": precision,
            "seed": seed,
            "epochs": epochs,
            "batch_size": batch_size,
            "patience": patience,
            "steps_per_epoch": steps_per_epoch,
            "class_names": splits.class_names,
            **settings("model", model),
            **settings("optimizer", model.optimizer),
            **settings("loss", model.loss),
        }
        early_stop = None
        if patience is not None:
            early_stop = EarlyStop(
                optimizer, f"val_{recipe.score}", patience, epochs, steps_per_epoch
            )
        state = SaveState(
            checkpoints, configuration, save_every, steps_per_epoch, early_stop
        )
        if resume:
            check_equal("The newest checkpoint's step", checkpoints.newest_step())
            state.restore(model, splits.validation.take(1))
        callbacks = [
            Measures(optimizer, step_size),
            ValidateAverage(optimizer),
            *([early_stop] if early_stop else []),
            *([_tensor_board(run_folder)] if is_writer else []),
            state,
            *([_history_writer(run_folder, state)] if is_writer else []),
        ]
        verbose = "auto" if is_writer else 0
        _fit(model, splits, state, callbacks, epochs, steps_per_epoch, verbose)
        seconds = state.seconds
        optimizer.assign_weights(
            early_stop.weights if early_stop else optimizer.averages()
        )
        test = _test(model, splits.test, recipe, distribution)
        without = _score_without_each(model, splits, recipe, distribution)

    num_examples = state.step * step_size
    metrics = {
        "recipe": recipe.name,
        "backend": keras.backend.backend(),
        "precision": precision,
        "seed": seed,
        "class_names": splits.class_names,
        "parameters": model.count_params(),
        "epochs": epochs,
        "batch_size": batch_size,
        "distribution": distribution.engine,
        "devices": distribution.devices,
        **({"best_epoch": early_stop.best_epoch + 1} if early_stop else {}),
        "train_seconds": round(seconds, 2),
        "examples_per_second": round(num_examples / seconds, 1),
        **{f"test_{name}": value for name, value in test.items()},
        **({f"test_{recipe.score}_without": without} if without else {}),
        "versions": installed_versions(),
    }
    if not is_writer:
        return metrics
    model_path = run_folder / "model.keras"
    replace_file(model_path, model.save)
    text = json.dumps(metrics, indent=2) + "\n"
    replace_file(run_folder / "metrics.json", lambda path: path.write_text(text))
    replace_file(
        run_folder / "history.png",
        lambda path: plot_history(state.history, metrics, recipe.score, path),
    )
    if distribution.engine != "none":
        # On one device, as those who read the file have it, whoever else is left.
        model = keras.saving.load_model(model_path, compile=False)
    export = export_for_serving(
        model,
        export_folder,
        signatures=file_signatures(recipe.files and recipe.files()),
        metrics=metrics,
    )
    # Only now: until here a resumed run could still do what is left.
    shutil.rmtree(checkpoints.folder, ignore_errors=True)
    return {**metrics, "model": model_path, "export": export}


def _first(value, default):
    return default if value is None else value


def _first_steps(splits, num_steps):
    return splits._replace(
        train=splits.train.take(num_steps),
        validation=splits.validation.take(1),
        test=splits.test.take(1),
        epoch=lambda number, num_done=0: (
            splits.epoch(number).take(num_steps).skip(num_done)
        ),
    )


def _tensor_board(run_folder):
    return keras.callbacks.TensorBoard(run_folder / LOGS, write_graph=False)


def _history_writer(run_folder, state):
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: replace_file(
            run_folder / "history.csv",
            lambda path: write_history(state.history, path),
        )
    )


def compile_classifier(model, optimizer, is_multi_label=False, label_smoothing=0.0):
    """Compiles a classifier with the loss and the score of a recipe.

    Args:
        model: `PerceiverClassifier`.
        optimizer: `keras.optimizers.Optimizer`.
        is_multi_label: Boolean, see `Recipe`.
        label_smoothing: Float, see `Recipe`.
    """
    if is_multi_label:
        loss = keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=label_smoothing
        )
        metric = MeanAveragePrecision(model.num_classes)
    else:
        loss, metric = SmoothedCrossentropy(label_smoothing), Accuracy()
    # Weighted, as examples that only fill up a batch weigh nothing.
    model.compile(optimizer=optimizer, loss=loss, weighted_metrics=[metric])


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


def _fit(model, splits, state, callbacks, epochs, steps_per_epoch, verbose="auto"):
    """Trains from the step at which the state is."""

    def is_over():
        return state.early_stop is not None and state.early_stop.is_over

    def fit(first_epoch, epochs, num_done):
        model.fit(
            # One iterator for all epochs: to start one takes longer than a small epoch.
            splits.epochs(first_epoch, epochs, num_done),
            steps_per_epoch=steps_per_epoch - num_done,
            validation_data=splits.validation,
            initial_epoch=first_epoch,
            epochs=epochs,
            callbacks=callbacks,
            shuffle=False,  # the dataset is
            verbose=verbose,
        )

    epoch, num_done = divmod(state.step, steps_per_epoch)
    with state.signals():
        if num_done:  # the rest of an epoch
            epoch += 1
            fit(epoch - 1, epoch, num_done)
        if epoch < epochs and not is_over():
            fit(epoch, epochs, 0)


def _test(model, dataset, recipe, distribution):
    """Returns the loss and the score of a model, exactly.

    Keras' own evaluation knows no clips, and mean average precision by thresholds only.
    """
    if not recipe.is_multi_label and not has_clips(model, dataset.element_spec[0]):
        dataset = distribution.evaluation(dataset)
        return model.evaluate(dataset, return_dict=True, verbose=0)
    found = evaluate(model, dataset)
    loss = model.loss(found.targets, found.logits)
    return {
        "loss": float(keras.ops.convert_to_numpy(loss)),
        recipe.score: found.metrics()[recipe.score],
    }


def _score_without_each(model, splits, recipe, distribution):
    """Returns the score with one modality missing in all examples, by its name.

    Empty if there is one modality only; those without a mask cannot be missing.
    """
    modalities = model.encoder.byte_array.modalities
    if len(modalities) == 1:
        return {}

    def without(mask_name):
        return splits.test.map(
            lambda inputs, labels: (
                {**inputs, mask_name: inputs[mask_name] & False},
                labels,
            )
        )

    return {
        name: _test(model, without(f"{name}_mask"), recipe, distribution)[recipe.score]
        for name, modality in modalities.items()
        if modality.use_mask
    }
