"""Recipes: reproducible runs, described before anything is built."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from keras_perceiver._checks import (
    PRECISIONS,
    check_choice,
    check_fraction,
    check_positive,
)
from keras_perceiver.config import Config
from keras_perceiver.training.layer_rates import (
    LayerwiseOptimizer,
    check_decay,
    layer_rates,
)
from keras_perceiver.training.schedules import accumulate_gradients

_CONFIGS = ("data", "task", "model", "optimizer")
_FIXED = ("name", "overrides")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A reproducible training run.

    A class or a function is converted to a `Config` without arguments.

    Attributes:
        name: String, the name of the recipe's module.
        data: `Config` of a function that returns `keras_perceiver.data.Splits`, with the
            arguments `batch_size` and `seed`, `folder` if it reads one, `preprocessor` if
            it uses that of this recipe, and `mock` if it provides mock data.
        task: `Config` of a task with the arguments `encoder` and `preprocessor`, and
            `num_classes` and `class_names` if it has classes.
        model: `Config` of the encoder, or of the pretrained task that `task` takes as its
            argument `encoder`, see `fine_tuned_classifier`.
        optimizer: `Config` of the optimizer. Its `learning_rate` is the peak of the
            schedule.
        epochs: Integer, passes over the training data.
        batch_size: Integer, examples per update of the weights.
        schedule: `Config` of a function `(learning_rate, num_steps)` that returns the
            learning rate schedule of a run, such as
            `keras_perceiver.training.warm_cosine`, or `None` for a constant learning
            rate.
        label_smoothing: Float in `[0, 1)`, label smoothing of the default loss of the task.
        ema_momentum: Float in `[0, 1)`, momentum of the averaged weights, which are
            validated, tested and saved, see `TrackingOptimizer`. `None` disables
            averaging.
        accumulation_steps: Integer, micro-batches per update, for the memory of one of
            them. Must divide `batch_size`.
        layer_decay: Float in `(0, 1]`, by which the learning rate falls from each layer of
            the encoder to the one before it, see `layer_rates`, or `None`.
        patience: Integer, see `EarlyStop`: epochs without a better validation score
            before the run ends with the best weights. `None` for all epochs and the last
            weights.
        preprocessor: `Config` of the preprocessor of the files, or of a dict of
            preprocessors, or of a function of the config `model`, such as
            `preprocessor_of`, or `None` for that of `data`.
        write_mock: Callable `(folder)` that writes random files for `data`, to test the
            recipe, or `None` if `data` takes `mock` or does not read a folder.
        overrides: Mapping from dotted paths to values, the arguments of `replace`.

    Raises:
        ValueError: if `data`, `task`, `model` or `optimizer` is not a config, a class
            or a function, if a number is out of range, or if the micro-batches of a
            batch would differ in size.
    """

    name: str
    data: Config | Callable
    task: Config | Callable
    model: Config | Callable
    optimizer: Config | Callable
    epochs: int
    batch_size: int
    schedule: Config | Callable | None = None
    label_smoothing: float = 0.0
    ema_momentum: float | None = None
    accumulation_steps: int = 1
    layer_decay: float | None = None
    patience: int | None = None
    preprocessor: Config | Callable | None = None
    write_mock: Callable | None = None
    overrides: Mapping = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in (*_CONFIGS, "schedule", "preprocessor"):
            value = getattr(self, name)
            if isinstance(value, Config) or (value is None and name not in _CONFIGS):
                continue
            if not callable(value):
                raise ValueError(
                    f"`{name}` must be a `Config`. Received: {name}={value!r}. Set its "
                    f"arguments, as in `{name}.ARGUMENT=VALUE`."
                )
            object.__setattr__(self, name, Config(value))  # frozen fields
        names = ["epochs", "batch_size", "accumulation_steps"]
        names += ["patience"] if self.patience is not None else []
        check_positive(**{name: getattr(self, name) for name in names})
        check_fraction(label_smoothing=self.label_smoothing)
        if self.ema_momentum is not None:
            check_fraction(ema_momentum=self.ema_momentum)
        if self.layer_decay is not None:
            check_decay(self.layer_decay, "layer_decay")
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                "`batch_size` must be divisible by `accumulation_steps`. Received: "
                f"batch_size={self.batch_size}, accumulation_steps="
                f"{self.accumulation_steps}. Choose a multiple of "
                f"{self.accumulation_steps}."
            )

    def replace(self, overrides):
        """Returns a recipe with some settings replaced.

        Args:
            overrides: Mapping from dotted paths to values, for example
                `{"epochs": 300, "model.use_remat": True, "optimizer.learning_rate":
                1e-3}`, see `keras_perceiver.config.Config.replace`.

        Raises:
            ValueError: if there is no such setting, or if a value is invalid.
        """
        settings = self._settings()
        for path, value in overrides.items():
            if path in _FIXED:
                raise ValueError(
                    "A name must be a setting of the recipe. Received: "
                    f"{path}={value!r}, which cannot be set. Choose one of "
                    f"{', '.join(settings.kwargs)}."
                )
        return Recipe(
            name=self.name,
            overrides={**self.overrides, **overrides},
            **settings.replace(overrides).kwargs,
        )

    def paths(self):
        """Returns a dict from the dotted paths of all settings to their values."""
        paths = self._settings().paths()
        return {path: value for path, value in paths.items() if path not in _FIXED}

    def _settings(self):
        names = [field.name for field in dataclasses.fields(self)]
        return Config(Recipe, **{n: getattr(self, n) for n in names if n not in _FIXED})

    def at_precision(self, precision):
        """Returns the recipe with a dtype policy for all layers that have none.

        Args:
            precision: String, one of `PRECISIONS`.
        """
        check_choice("`precision`", precision, PRECISIONS)
        return self.replace(
            {
                f"model.{path}": precision
                for path, value in self.model.paths().items()
                if path.split(".")[-1] == "dtype" and value is None
            }
        )

    @property
    def precision(self):
        """String, the dtype policy of the encoder."""
        return self.model.paths().get("dtype") or keras.config.dtype_policy().name

    @property
    def step_size(self):
        """Integer, examples per training step. An update may consist of several steps."""
        return self.batch_size // self.accumulation_steps

    def splits(self, batch_size, seed=0, data_folder=None):
        """Returns the `Splits` of the recipe's data.

        Args:
            batch_size: Integer, examples per batch.
            seed: Integer, seed of the shuffling and of the augmentation.
            data_folder: Path of the folder of the data. Defaults to the recipe's.

        Raises:
            ValueError: if `data_folder` is missing, or passed to a recipe that reads
                none.
        """
        folder = self.folder_argument(data_folder)
        return self.data(
            batch_size=batch_size, seed=seed, **folder, **self._preprocessor()
        )

    def folder_argument(self, data_folder=None):
        """Returns the argument `folder` of `data` as a dict, checked as in `splits`."""
        if not self.data.accepts("folder"):
            if data_folder is not None:
                raise ValueError(
                    f"The recipe {self.name!r} does not read a folder. Received: "
                    f"data_folder={data_folder!r}. Remove it."
                )
            return {}
        folder = data_folder or self.data.kwargs.get("folder")
        if folder is None:
            raise ValueError(
                f"The recipe {self.name!r} needs a `data_folder`. Received: "
                "data_folder=None. Pass the folder of the data (--data DIR)."
            )
        return {"folder": Path(folder).expanduser()}

    def _preprocessor(self):
        """Returns the argument `preprocessor` of `data` as a dict."""
        if self.preprocessor is None:
            return {}
        model = {"model": self.model} if self.preprocessor.accepts("model") else {}
        return {"preprocessor": self.preprocessor(**model)}

    def mock_splits(self, batch_size, seed=0):
        """Returns `Splits` of mock data in the shapes of the recipe's data.

        Raises:
            ValueError: if the recipe has no mock data.
        """
        options = {"batch_size": batch_size, "seed": seed, **self._preprocessor()}
        if self.data.accepts("mock"):
            return self.data(**options, mock=True)
        if not self.data.accepts("folder"):
            return self.data(**options)
        if self.write_mock is None:
            raise ValueError(
                "A smoke test needs mock data. Received: the recipe "
                f"{self.name!r}, which has none. Set `write_mock`."
            )
        with tempfile.TemporaryDirectory() as folder:  # `data` reads all into memory
            self.write_mock(Path(folder))
            return self.data(**options, folder=Path(folder))

    def build_task(self, encoder, splits):
        """Returns the task for an encoder.

        Args:
            encoder: Encoder or pretrained task, as `model` creates it.
            splits: `Splits` of the data, with the class names and the preprocessor.
        """
        known = {
            "num_classes": len(splits.class_names),
            "class_names": tuple(splits.class_names),
            "preprocessor": splits.preprocessor,
        }
        known = {name: x for name, x in known.items() if self.task.accepts(name)}
        return self.task(encoder=encoder, **known)

    def build_optimizer(self, num_updates, model=None):
        """Returns the optimizer of a run.

        Args:
            num_updates: Integer, updates of the weights in the run.
            model: Task whose layers get the rates of `layer_decay`, if there is one.
        """
        if self.schedule is None:
            optimizer = self.optimizer()
        else:
            peak = self.optimizer.paths().get("learning_rate")
            if not isinstance(peak, (int, float)):
                raise ValueError(
                    "`optimizer.learning_rate` must be a number, the peak of `schedule`. "
                    f"Received: learning_rate={peak!r}. Set a number, or set `schedule` "
                    "to None."
                )
            schedule = self.schedule(learning_rate=peak, num_steps=num_updates)
            optimizer = self.optimizer(learning_rate=schedule)
        accumulate_gradients(optimizer, self.accumulation_steps)
        if self.layer_decay is None or model is None:
            return optimizer
        return LayerwiseOptimizer(optimizer, layer_rates(model, self.layer_decay))
