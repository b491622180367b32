"""The hypermodel, which KerasTuner builds and trains in each trial."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner as kt
from keras_tuner.errors import FailedTrialError

from keras_perceiver.config import Config
from keras_perceiver.models.cost import sizes_of
from keras_perceiver.training import (
    PRECISIONS,
    Lamb,
    TrackingOptimizer,
    compile_task,
    warm_cosine,
)
from keras_perceiver.training.fit import smooths_labels
from keras_perceiver.tuning import space as spaces
from keras_perceiver.tuning.batches import batches
from keras_perceiver.tuning.encoders import (
    base_config,
    encoder_config,
    input_sizes,
    is_fourier,
    settings_around,
    trunk_of,
)
from keras_perceiver.tuning.failures import fails_without_memory

if TYPE_CHECKING:
    from keras_perceiver.distribution import Distribution
    from keras_perceiver.modalities import ByteArray, Modality
    from keras_perceiver.models import Task

_NO_AUGMENTATION = "none"
# Names that do not affect the size of a model.
_WITHOUT_SIZE = ("dropout", *(n for n in spaces.OF_TRAINING if n != "batch_size"))
_BYTES = {"float32": 4, "mixed_bfloat16": 2, "mixed_float16": 2}


class PerceiverHyperModel(kt.HyperModel):
    """A KerasTuner hypermodel for Perceivers of many sizes.

    It is the `hypermodel` of `keras_tuner.RandomSearch`, `Hyperband` and so on. The
    objective is the score of the task on the validation data, such as `"val_accuracy"`.
    `keras_perceiver.tuning.search` and `keras-perceiver tune` add budgets, workers, tables
    and plots, and never propose infeasible models.
    A *space* defines the search: a dict from names to a list of values to choose from, a
    tuple of the two ends of a range (with linear sampling, or logarithmic sampling if
    they are a factor of ten apart), or a single value, which is fixed. Names are those of
    `space_names()`: dotted paths to the arguments of `Perceiver`, such as `num_latents`,
    `self_attend.num_heads` and `modality.element_dropout`, and

    - `cross_attends_per_block`: ratio of the number of cross-attends to that of blocks
      (at least one cross-attend);
    - `num_bands`, `max_resolution_scale`: for all modalities with Fourier features. The
      second one is a factor of the maximum resolution;
    - `dropout`: for all cross-attends and self-attends;
    - `optimizer` (`"adamw"` or `"lamb"`), `learning_rate` (the peak, between linear
      warm-up and cosine decay to zero), `weight_decay`, `label_smoothing`;
    - `batch_size`, and `augmentation`, one of the names in `augmentations` or `"none"`.
    Values with these names in the user's own `keras_tuner.HyperParameters` override the
    space.
    Infeasible models, whose widths are not divisible by their heads or which exceed a
    limit, are not built: such a trial fails immediately with the reason. So does one that
    runs out of memory. If no model in the space is feasible, an error is raised before
    the first trial.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), tables 5 to 7 and
        figure 6, for the hyperparameters that matter, and
        [KerasTuner](https://keras.io/keras_tuner).

    Args:
        modality: Modality layer, dict of modality layers, or `ByteArray`, see
            `Perceiver`. Trials use copies.
        task: `Config` of the task, such as `Config(PerceiverClassifier, num_classes=10)`,
            with the argument `encoder`.
        space: Dict of settings that replace or add to those of the default space.
        settings: Dict from dotted paths to other arguments of `Perceiver` that are the
            same in all trials.
        defaults: Dict of values that a search starts with. Defaults to the middle of the
            space.
        augmentations: Dict from names to callables `(inputs, key)` that augment a batch
            of training inputs, such as `keras_perceiver.data.image_augmentation()`.
        num_inputs: Integer, number of elements per example, for the limits. Defaults to
            the maximum.
        num_examples: Integer, number of training examples. Larger batch sizes are
            infeasible. Defaults to the number in the arrays or the dataset, once
            `keras_perceiver.tuning.search` gets them.
        max_parameters: Integer, maximum number of parameters, or `None`.
        max_flops: Number, maximum FLOPs per example, or `None`.
        max_activation_bytes: Number, maximum of the estimated memory of training with a
            batch, without the weights, or `None`.
        precision: String, dtype policy of the models: float32, mixed_bfloat16 or
            mixed_float16.
        distribution: `keras_perceiver.distribution.Distribution` that models are created
            and trained with, or `None`. KerasTuner resets a scope that was entered
            before.
        seed: Integer, seed of the weights and of the shuffling, the same in all trials,
            or `None` for random seeds.
        name: String, see `keras_tuner.HyperModel`.
        tunable: Boolean, see `keras_tuner.HyperModel`.

    Returns:
        `build` returns the compiled task.

    Raises:
        TypeError: if `modality` is not a modality, or `task` is not a `Config`.
        ValueError: if a name in the space or a setting is unknown, if a value is invalid,
            or if no model in the space is feasible.

    Example:

    >>> hyper_model = PerceiverHyperModel(
    ...     Image((8, 8, 1)),
    ...     Config(PerceiverClassifier, num_classes=10),
    ...     space={"latent_dim": [32, 64]},
    ...     max_flops=1e9,
    ... )
    >>> import keras_tuner
    >>> model = hyper_model.build(keras_tuner.HyperParameters())
    >>> tuple(model(keras.random.normal((2, 8, 8, 1))).shape)
    (2, 10)
    """

    def __init__(
        self,
        modality: Modality | dict[str, Modality] | ByteArray,
        task: Config | type[Task],
        space: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        defaults: dict[str, Any] | None = None,
        augmentations: dict[str, Callable] | None = None,
        num_inputs: int | None = None,
        num_examples: int | None = None,
        max_parameters: int | None = None,
        max_flops: float | None = None,
        max_activation_bytes: float | None = None,
        precision: str = "float32",
        distribution: Distribution | None = None,
        seed: int | None = None,
        name: str | None = None,
        tunable: bool = True,
    ) -> None:
        super().__init__(name, tunable)
        if precision not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {PRECISIONS}. Received: "
                f"precision={precision!r}. Choose one of them."
            )
        if not isinstance(task, Config):
            raise TypeError(
                "`task` must be a `Config` of a task. Received: "
                f"task={task!r} of type {type(task).__name__}. Pass, for example, "
                "`Config(Task, num_classes=10)`, with the class of your task."
            )
        self.task = task
        base = base_config(modality)
        self.settings = dict(settings or {})
        spaces.check_names("settings", self.settings, spaces.names(base))
        self._base = base
        self.augmentations = dict(augmentations or {})
        self.num_inputs = num_inputs
        self.num_examples = num_examples
        self.max_parameters = max_parameters
        self.max_flops = max_flops
        self.max_activation_bytes = max_activation_bytes
        self.precision = precision
        self.distribution = distribution
        self.seed = seed
        self._sizes: dict[tuple, Any] = {}
        self._infeasibilities: dict[tuple, Any] = {}
        self.space = self._space(space or {})
        self._given_defaults = dict(defaults or {})
        self.defaults = self._defaults(self._given_defaults)

    def space_names(self):
        """Returns the sorted names that a space may have."""
        return spaces.names(self._base)

    @classmethod
    def around(cls, model, space=None, defaults=None, **options):
        """Creates a hypermodel with half, once and twice the sizes of a model.

        Heads, weight sharing, the number and position of cross-attends, and training
        settings are as in the default space. All other settings are those of the model.

        Args:
            model: Task in the middle of the space, whose settings a search starts with.
            space: Dict of settings that replace those of the space.
            defaults: Dict of values that a search starts with, such as a learning rate.
            **options: Other arguments of `PerceiverHyperModel`.

        Returns:
            `PerceiverHyperModel`.

        Example:

        >>> model = PerceiverClassifier.from_preset("digits")
        >>> PerceiverHyperModel.around(model).space["latent_dim"]
        [32, 64, 128]
        """
        space_of_model, begin, kept = settings_around(model)
        space = {**space_of_model, **(space or {})}
        settings = {path: value for path, value in kept.items() if path not in space}
        return cls(
            model.encoder.byte_array,
            _task_of(model),
            space=space,
            settings={**settings, **options.pop("settings", {})},
            defaults={**begin, **(defaults or {})},
            **options,
        )

    def _space(self, changes):
        spaces.check_names("space", changes, self.space_names())
        space = {**spaces.SPACE, **changes}
        modalities = self._base.kwargs["modality"].modalities
        if not any(map(is_fourier, modalities.values())):
            for name in ("num_bands", "max_resolution_scale"):
                if name in changes:
                    raise ValueError(
                        f"`{name}` is for modalities with Fourier features. Received: "
                        f"space={changes}, and {modalities}. Remove it."
                    )
                del space[name]
        if not smooths_labels(self.task.cls):
            if "label_smoothing" in changes:
                raise ValueError(
                    "`label_smoothing` is for tasks whose default loss smooths labels. "
                    f"Received: space={changes} and {self.task.cls.__name__}. Remove it."
                )
            del space["label_smoothing"]
        known = [_NO_AUGMENTATION, *self.augmentations]
        if self.augmentations and "augmentation" not in changes:
            space["augmentation"] = known
        space = spaces.checked(space)
        for name, allowed in (
            ("augmentation", known),
            ("optimizer", ["adamw", "lamb"]),
        ):
            setting = space.get(name, allowed)
            values = setting if isinstance(setting, list) else [setting]
            if not set(values) <= set(allowed):
                raise ValueError(
                    f"`{name}` must be one of {allowed}. Received: {setting!r}. Choose "
                    "from these."
                )
        clash = sorted(set(self.settings) & set(space) - set(changes))
        for name in clash:  # settings that are the same in all trials
            space[name] = spaces.checked({name: self.settings[name]})[name]
        return space

    def set_num_examples(self, num_examples):
        """Sets the number of training examples. Larger batch sizes are infeasible.

        Raises:
            ValueError: if no batch size in the space is feasible.
        """
        self.num_examples = num_examples
        self._infeasibilities = {}
        self.defaults = self._defaults(self._given_defaults)

    def _defaults(self, given):
        unknown = sorted(set(given) - set(self.space) - set(spaces.OPTIONAL))
        if unknown:
            raise ValueError(
                "`defaults` must have names of the space. Received: "
                f"{unknown}. Choose from {sorted(self.space)}."
            )
        defaults = {
            name: spaces.nearest(setting, given[name])
            if name in given
            else spaces.typical(setting)
            for name, setting in self.space.items()
        }
        return spaces.feasible_values(self.space, defaults, self.infeasibility)

    def values(self, hp):
        """Registers the space with KerasTuner, and returns the values of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            Dict from names to values.
        """
        return {
            name: spaces.declare(hp, name, setting, self.defaults[name])
            for name, setting in self.space.items()
        }

    def infeasibility(self, values):
        """Returns why a model with these values is infeasible, or `None` if it is feasible.

        The model is not built.

        Args:
            values: Dict from the names of the space to values.
        """
        key = tuple(
            (name, value)
            for name, value in sorted(values.items())
            if name not in _WITHOUT_SIZE
        )
        if key not in self._infeasibilities:
            self._infeasibilities[key] = self._infeasibility(values)
        return self._infeasibilities[key]

    def _infeasibility(self, values):
        encoder = self.encoder(values)
        try:
            input_dim, _ = self._input_sizes(values)
            trunk_of(encoder).num_parameters(encoder.kwargs["latent_dim"], input_dim)
        except ValueError as error:
            return str(error)
        num_replicas = getattr(self.distribution, "num_replicas", 1)
        if values["batch_size"] % num_replicas:
            return (
                f"batch_size={values['batch_size']} is not divisible by the "
                f"{num_replicas} replicas."
            )
        size, limit = values["batch_size"], self.num_examples
        if limit is not None and size > limit:
            return f"batch_size={size} exceeds the {limit} training examples."
        limits = {
            "parameters": self.max_parameters,
            "flops": self.max_flops,
            "activation_bytes": self.max_activation_bytes,
        }
        if not any(limits.values()):
            return None
        sizes = self.sizes(values)
        for name, limit in limits.items():
            found = getattr(sizes, name)
            if limit is not None and found > limit:
                return f"{found:,} {name} are more than max_{name}={limit:,}."
        return None

    def sizes(self, values):
        """Returns the `Sizes` of the model with these values, without building it.

        Args:
            values: Dict from the names of the space to values.

        Raises:
            ValueError: if the number of inputs is unknown.
        """
        encoder = self.encoder(values)
        num_inputs = self.num_inputs
        if num_inputs is None:
            modalities = encoder.kwargs["modality"].modalities
            lengths = [layer.num_inputs for layer in modalities.values()]
            if None in lengths:
                raise ValueError(
                    "`num_inputs` is required for inputs of any length. Received: "
                    f"num_inputs=None for {modalities}. Pass the number of elements per "
                    "example."
                )
            num_inputs = sum(lengths)
        input_dim, parameters = self._input_sizes(values)
        sizes = sizes_of(
            trunk_of(encoder),
            encoder.kwargs["num_latents"],
            encoder.kwargs["latent_dim"],
            num_inputs,
            input_dim,
            # The width of a head with one layer. Other heads are not counted.
            self.task.kwargs.get("num_classes", 0),
            values["batch_size"] * _BYTES[self.precision],
        )
        return sizes._replace(parameters=sizes.parameters + parameters)

    def build(self, hp):
        """Returns the compiled model of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            The task.

        Raises:
            FailedTrialError: if the model is infeasible.
        """
        values = self.values(hp)
        reason = self.infeasibility(values)
        if reason is not None:
            raise FailedTrialError(f"{reason} Values: {values}.")
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed)
        with fails_without_memory(), self._scope():
            encoder = self.encoder(values)(dtype=self.precision)
            model = self.task(encoder=encoder)
            self._compile(model, values, num_steps=None)
        return model

    def fit(
        self,
        hp,
        model,
        x,
        y=None,
        validation_data=None,
        sample_weight=None,
        validation_split=0.0,
        batch_size=None,
        **options,
    ):
        """Trains the model of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: Model that `build` returned.
            x: Arrays, a batched `tf.data.Dataset` of `(inputs, labels)`, which is
                rebatched, or a callable `(batch_size, seed)` that returns
                `keras_perceiver.data.Splits`.
            y: Labels, if `x` are arrays.
            validation_data: See `keras.Model.fit`. Defaults to that of the splits.
            sample_weight: Weights of the examples, if `x` are arrays.
            validation_split: Float, fraction of the arrays, from their end, that is held
                out for validation if there is no `validation_data`.
            batch_size: Integer, replaces the one of the space.
            **options: See `keras.Model.fit`. `epochs` is the number of the last epoch.

        Returns:
            `keras.callbacks.History`.

        Raises:
            FailedTrialError: if training runs out of memory, or if there is no full batch.
        """
        values = self.values(hp)
        seed = 0 if self.seed is None else self.seed
        batch_size = values["batch_size"] if batch_size is None else batch_size
        train, num_batches, validation = batches(
            x,
            y,
            sample_weight,
            validation_data,
            validation_split,
            batch_size,
            seed,
            self.distribution,
        )
        if num_batches == 0:
            raise FailedTrialError(
                f"batch_size={batch_size} exceeds the number of training examples."
            )
        change = self.augmentations.get(values.get("augmentation"))
        if change is not None:
            from keras_perceiver.data.splits import augment_dataset

            train = augment_dataset(train, change, seed)
        num_epochs = options.get("epochs", 1) - options.get("initial_epoch", 0)
        num_steps = max(num_epochs * num_batches, 1)
        with fails_without_memory(), self._scope():
            self._compile(model, values, num_steps)
            options = {"shuffle": False, **options}  # shuffled already
            return model.fit(train, validation_data=validation, **options)

    def optimizer(self, values, num_steps):
        """Returns the optimizer for training with these values.

        Args:
            values: Dict from the names of the space to values.
            num_steps: Integer, number of training steps, or `None` for a constant
                learning rate.
        """
        rate = values["learning_rate"]
        if num_steps is not None:
            rate = warm_cosine(rate, num_steps)
        return self._optimizer(values)(learning_rate=rate)

    def _optimizer(self, values):
        kind = {"adamw": keras.optimizers.AdamW, "lamb": Lamb}[values["optimizer"]]
        return Config(kind, weight_decay=values["weight_decay"], clipnorm=1.0)

    def recipe(self, values, recipe, epochs):
        """Returns a recipe that trains the model with these values as a trial does.

        Args:
            values: Dict from the names of the space to values.
            recipe: `keras_perceiver.training.Recipe` for the same data.
            epochs: Integer, number of epochs.
        """
        rate = values["learning_rate"]
        return dataclasses.replace(
            recipe,
            model=self.encoder(values),
            optimizer=self._optimizer(values).replace({"learning_rate": rate}),
            schedule=warm_cosine,
            epochs=epochs,
            batch_size=values["batch_size"],
            label_smoothing=values.get("label_smoothing", 0.0),
            ema_momentum=None,
            accumulation_steps=1,
            patience=None,
        )

    @property
    def objective(self):
        """`keras_tuner.Objective`, the score on the validation data."""
        return kt.Objective(f"val_{self.task.cls.score}", "max")

    def _scope(self):
        if self.distribution is None:
            return contextlib.nullcontext()
        return self.distribution.scope()

    def _compile(self, model, values, num_steps):
        # As when a recipe is trained, gradients are clipped once for all devices.
        optimizer = TrackingOptimizer(self.optimizer(values, num_steps))
        compile_task(model, optimizer, values.get("label_smoothing", 0.0))

    def encoder(self, values):
        """Returns the `Config` of the `Perceiver` with these values.

        Args:
            values: Dict from the names of the space to values.
        """
        return encoder_config(self._base, self.settings, values, self.precision)

    def _input_sizes(self, values):
        """Returns the cached `input_sizes`, which only depend on the modalities."""
        key = tuple(
            (name, value)
            for name, value in sorted(values.items())
            if name in spaces.OPTIONAL or name.startswith("modality")
        )
        if key not in self._sizes:
            self._sizes[key] = input_sizes(self.encoder(values))
        return self._sizes[key]


def _task_of(model):
    """Returns the config of a task, without its encoder and preprocessor."""
    left_out = ("name", "trainable", "dtype", "encoder", "preprocessor")
    config = {k: v for k, v in model.get_config().items() if k not in left_out}
    return Config(type(model), **config)
