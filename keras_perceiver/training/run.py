"""Runs: training of a recipe in stages, from its data to an exported model."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_perceiver._checks import check_positive
from keras_perceiver._files import check_writable, replace_file
from keras_perceiver._runs import CHECKPOINTS, METRICS, MODEL, locked_run
from keras_perceiver.config import describe
from keras_perceiver.distribution import check_equal, get_distribution
from keras_perceiver.serving import export_for_serving
from keras_perceiver.serving.card import (
    installed_versions,
    version_of_weights,
    weights_hash,
)
from keras_perceiver.training import smoke as smoke_test
from keras_perceiver.training.callbacks import (
    EarlyStop,
    Measures,
    ValidateAverage,
    WriteHistory,
    is_installed,
    tensor_board,
    write_history,
)
from keras_perceiver.training.checkpoints import Checkpoints, check_unused
from keras_perceiver.training.fit import compile_task, fit
from keras_perceiver.training.plots import plot_history
from keras_perceiver.training.provenance import provenance
from keras_perceiver.training.resume import SaveState, settings
from keras_perceiver.training.score import score, score_without_each
from keras_perceiver.training.tracking import TrackingOptimizer

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.distribution import Distribution
    from keras_perceiver.training.recipe import Recipe

EXPORT, HISTORY, LOGS = "export", "history.csv", "logs"
_STAGES = ("prepare", "fit", "score", "save", "export")


class Run:
    """A training run of a recipe in stages: prepare, fit, score, save, export.

    It writes `model.keras`, `metrics.json` and `history.csv` to the run folder, as well as
    `history.png` if Matplotlib is installed and `logs` if TensorBoard is, and a SavedModel
    to the next free version of the export folder. Invalid arguments are reported before
    the first step.
    During training, the folder `checkpoints` in the run folder contains the whole state:
    weights, optimizer, seeds, metrics, position in the data. It is also saved at SIGTERM
    and SIGINT. With `resume`, another process continues from there, and ends with the same
    weights as an uninterrupted run. The number of devices may change. Other versions,
    code or data cause a warning. `export` deletes the checkpoints.
    One process at a time uses a run folder, until the run is exported or fails.
    Several processes that train together (see `keras_perceiver.distribution`) must all
    create the same run with the same run folder, which process 0 writes.

    Args:
        recipe: `Recipe`.
        run_folder: Path of a folder without a `model.keras`, which is created if it is
            missing. To resume, the folder of the interrupted run.
        export_folder: Path of the folder with the numbered exports. Defaults to the
            folder `export` in the run folder.
        seed: Integer, seed of weights, shuffling, augmentation and dropout.
        data_folder: Path of the data, for recipes that read a folder. Defaults to the
            recipe's, if it has one.
        save_every: Integer, training steps between two checkpoints.
        keep: Integer, number of checkpoints to keep.
        resume: Boolean, whether to continue from the latest intact checkpoint in the run
            folder. If there is none, training starts from the beginning.
        smoke: Boolean, whether to test the recipe offline: three steps on mock data, by
            default with two examples per micro-batch and device, and for one epoch.
        distribution: String, an engine of `Distribution`, or a `Distribution`.
        devices: Integer, number of devices. Defaults to all that the engine finds.

    Attributes:
        recipe: `Recipe`.
        splits: `Splits`, after `prepare`.
        model: The compiled task, after `prepare`.
        metrics: Dict of the entries of `metrics.json`, after `score`.
        result: Dict of `metrics` and the paths `model` and `export`.

    Raises:
        ValueError: if a number is not positive, if a data folder is missing or not used,
            or if the distribution is impossible.
        FileExistsError: if the run folder contains a model, or, without `resume`,
            checkpoints.
        PermissionError: if a folder is not writable.
        BlockingIOError: if another process uses the run folder.
    """

    def __init__(
        self,
        recipe: Recipe,
        run_folder: PathLike,
        export_folder: PathLike | None = None,
        seed: int = 0,
        data_folder: PathLike | None = None,
        save_every: int = 500,
        keep: int = 2,
        resume: bool = False,
        smoke: bool = False,
        distribution: str | Distribution = "auto",
        devices: int | None = None,
    ) -> None:
        self.distribution = get_distribution(distribution, devices)
        replicas = self.distribution.num_replicas
        self.recipe = smoke_test.smaller(recipe, replicas) if smoke else recipe
        self.run_folder = Path(run_folder)
        self.export_folder = Path(export_folder or self.run_folder / EXPORT)
        self.seed = seed
        self.data_folder = data_folder
        self.save_every = save_every
        self.resume = resume
        self.smoke = smoke
        self.is_writer = self.distribution.process_index == 0
        self.splits = self.model = self.metrics = None
        self.result: dict[str, Any] = {}
        self._num_done = 0

        check_positive(save_every=save_every, keep=keep)
        self.distribution.check_batch_size(
            self.recipe.batch_size, self.recipe.accumulation_steps
        )
        if not smoke:
            recipe.folder_argument(data_folder)
        elif data_folder is not None:
            raise ValueError(
                "A smoke test does not read a folder. Received: "
                f"data_folder={data_folder!r}. Remove it."
            )
        self._checkpoints = Checkpoints(
            self.run_folder / CHECKPOINTS, keep, is_read_only=not self.is_writer
        )
        check_writable("run_folder", self.run_folder)
        self._lock = contextlib.ExitStack()
        with contextlib.ExitStack() as lock:
            if self.is_writer:
                lock.enter_context(locked_run(self.run_folder))
            check_unused(self.run_folder, self._checkpoints, resume)
            check_writable("export_folder", self.export_folder)
            self._lock = lock.pop_all()

    def prepare(self):
        """Builds and compiles the model, reads the data, and restores a checkpoint.

        Raises:
            ValueError: if the model or the optimizer cannot be created, if there is
                less than a batch of training data, or if the checkpoint has another
                configuration.
            FileNotFoundError: if the data folder is missing.
        """
        with self._stage("prepare"):
            recipe = self.recipe
            recipe.build_optimizer(
                num_updates=1000
            )  # raises errors before data are read
            keras.utils.set_random_seed(self.seed)
            with self.distribution.scope():
                encoder = recipe.model()
            self.splits = self._read_data()
            with self.distribution.scope():
                self.model = recipe.build_task(encoder, self.splits)
                self._compile()
                self._prepare_state()

    def _read_data(self):
        recipe = self.recipe
        if self.smoke:
            splits = recipe.mock_splits(recipe.step_size, self.seed)
        else:
            splits = recipe.splits(recipe.step_size, self.seed, self.data_folder)
        self._provenance = provenance(splits)
        splits = self.distribution.splits(splits)
        if self.smoke:
            num_steps = smoke_test.NUM_STEPS * recipe.accumulation_steps
            splits = smoke_test.first_steps(splits, num_steps)
        self.steps_per_epoch = int(splits.train.cardinality())
        if self.steps_per_epoch < 1:
            raise ValueError(
                "`batch_size` must not exceed the number of training examples. Received: "
                f"batch_size={recipe.batch_size}, which leaves no full batch. Reduce it."
            )
        return splits

    def _compile(self):
        recipe = self.recipe
        num_steps = recipe.epochs * self.steps_per_epoch
        num_updates = max(num_steps // recipe.accumulation_steps, 1)
        self._optimizer = TrackingOptimizer(
            recipe.build_optimizer(num_updates, self.model), recipe.ema_momentum
        )
        compile_task(self.model, self._optimizer, recipe.label_smoothing)

    def _prepare_state(self):
        recipe = self.recipe
        self._early_stop = None
        if recipe.patience is not None:
            self._early_stop = EarlyStop(
                self._optimizer,
                f"val_{self.model.score}",
                recipe.patience,
                recipe.epochs,
                self.steps_per_epoch,
            )
        self._state = SaveState(
            self._checkpoints,
            self.configuration,
            self.save_every,
            self.steps_per_epoch,
            self._provenance,
            self._early_stop,
        )
        if self.resume:
            step = self._checkpoints.newest_step()
            check_equal("The newest checkpoint's step", step)
            self._state.restore(self.model, self.splits.validation.take(1))

    @property
    def configuration(self):
        """Dict of all settings that must be equal to resume this run."""
        recipe, model = self.recipe, self.model
        return {
            **self._description(),
            "patience": recipe.patience,
            "steps_per_epoch": self.steps_per_epoch,
            **settings("model", model),
            **settings("optimizer", model.optimizer),
            **settings("loss", model.loss),
        }

    def _description(self):
        recipe = self.recipe
        return {
            "recipe": recipe.name,
            "overrides": describe(recipe.overrides),
            "backend": keras.backend.backend(),
            "precision": recipe.precision,
            "seed": self.seed,
            "class_names": self.splits.class_names,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
        }

    @property
    def history(self):
        """Dict of lists, one value per epoch."""
        return self._state.history

    @property
    def step(self):
        """Integer, number of training steps so far, after `prepare`."""
        return self._state.step

    def fit(self, callbacks=(), verbose="auto"):
        """Trains the model, and sets its best or averaged weights.

        Args:
            callbacks: Sequence of additional `keras.callbacks.Callback`, which are called
                before those of the run.
            verbose: See `keras.Model.fit`. It applies to process 0.

        Raises:
            NonFiniteLossError: if the loss becomes NaN or infinite.
            TrainingInterruptedError: after SIGTERM or SIGINT, once the state is saved.
        """
        with self._stage("fit"), self.distribution.scope():
            fit(
                self.model,
                self.splits,
                self._state,
                [*callbacks, *self._callbacks()],
                self.recipe.epochs,
                verbose=verbose if self.is_writer else 0,
            )
            self._seconds = self._state.seconds
            best = self._early_stop.weights if self._early_stop else []
            self._optimizer.assign_weights(best or self._optimizer.averages())

    def _callbacks(self):
        callbacks = [
            Measures(self._optimizer, self.recipe.step_size),
            ValidateAverage(self._optimizer),
            *([self._early_stop] if self._early_stop else []),
            self._state,  # before the callbacks that write files
        ]
        if self.is_writer:
            callbacks += tensor_board(self.run_folder / LOGS)
            callbacks.append(WriteHistory(self.run_folder / HISTORY, self.history))
        return callbacks

    def score(self):
        """Tests the model, and sets `metrics`.

        Returns:
            Dict of the entries of `metrics.json`. The score is `test_accuracy`, or that
            of the task. With several modalities, `test_accuracy_without` is a dict of
            the accuracy without each modality.
        """
        model, recipe = self.model, self.recipe
        with self._stage("score"), self.distribution.scope():
            test = self.splits.test
            scores = score(model, test, self.distribution)
            without = score_without_each(model, test, self.distribution)
            digest = weights_hash(model)
        num_examples = self._state.step * recipe.step_size
        early_stop = self._early_stop
        self.metrics = {
            **self._description(),
            "parameters": model.count_params(),
            "distribution": self.distribution.engine,
            "devices": self.distribution.devices,
            **({"best_epoch": early_stop.best_epoch + 1} if early_stop else {}),
            "train_seconds": round(self._seconds, 2),
            "examples_per_second": round(num_examples / self._seconds, 1),
            **{f"test_{name}": value for name, value in scores.items()},
            **({f"test_{model.score}_without": without} if without else {}),
            "weights_sha256": digest,
            "versions": installed_versions(),
        }
        self.result = dict(self.metrics)
        return self.metrics

    def save(self):
        """Writes the model, the metrics and the history with its plot.

        Raises:
            WriteError: if the disk is full. The state is saved, so that the run can be
                resumed.
        """
        with self._stage("save"):
            if self.is_writer:
                self._save()

    def _save(self):
        def write(name, write_to):
            position = self._checkpoints.position()
            fix = f"Make room and resume: the run continues {position}."
            replace_file(self.run_folder / name, write_to, fix)

        text = json.dumps(self.metrics, indent=2) + "\n"
        write(MODEL, self.model.save)
        write(METRICS, lambda path: path.write_text(text))
        write_history(self.run_folder / HISTORY, self.history)
        path = self.run_folder / "history.png"
        if is_installed("matplotlib", f"{path} is not written"):
            data = self.history, self.metrics, self.model.score
            write(path.name, lambda path: plot_history(*data, path))
        self.result["model"] = self.run_folder / MODEL

    def export(self):
        """Exports the model for TF Serving, and deletes the checkpoints."""
        with self._stage("export"):
            if self.is_writer:
                self._export()
                # Until here, a resumed run can repeat what failed.
                shutil.rmtree(self._checkpoints.folder, ignore_errors=True)
        self._lock.close()

    def _export(self):
        folder, metrics, model = self.export_folder, self.metrics, self.model
        # An interrupted run may have exported these weights already.
        version = version_of_weights(folder, metrics["weights_sha256"])
        if version is None or not self.resume:
            if self.distribution.engine != "none":
                # On one device, like users of the file, even if other devices have failed.
                model = keras.saving.load_model(self.result["model"], compile=False)
            version = export_for_serving(model, folder, metrics=metrics)
        self.result["export"] = version

    @contextlib.contextmanager
    def _stage(self, stage):
        """Context of a stage. An error releases the lock of the run folder.

        Raises:
            RuntimeError: unless the stages before this one are done.
        """
        number = _STAGES.index(stage)
        if number != self._num_done:
            expected = _STAGES[self._num_done :][:1]
            raise RuntimeError(
                f"The stages of a run must be called in order: {', '.join(_STAGES)}. "
                f"Received: `{stage}`. "
                + (f"Call `{expected[0]}` next." if expected else "Create another run.")
            )
        self._num_done += 1
        try:
            yield
        except BaseException:
            self._lock.close()  # so that another process can resume it
            raise
