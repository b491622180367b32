"""A model that checks its inputs and targets on the host before each step."""

import functools
import inspect
import itertools
import os

import keras
import numpy as np

from keras_perceiver._checks import nearest, not_defined
from keras_perceiver.models.batches import (
    check_arrays,
    check_examples,
    check_has_targets,
    check_is_one_array,
    ranks_of,
    replica_batches,
)
from keras_perceiver.models.symbolic_lengths import jax2tf_arguments
from keras_perceiver.models.trainer_guard import GuardedModel

# Since version 3.16, Keras stacks the batches of one execution on JAX.
_VERSION = tuple(int(part) for part in keras.__version__.split(".")[:2])
_GROUPS_STEPS = keras.backend.backend() == "jax" and _VERSION >= (3, 16)


def _of_arrays(name):
    """Returns a method of `keras.Model` that checks its data first."""

    @functools.wraps(getattr(GuardedModel, name))
    def method(self, *args, **kwargs):
        self._check_data(*args, **kwargs)
        return getattr(super(CheckedModel, self), name)(*args, **kwargs)

    return method


class CheckedModel(GuardedModel):
    """A functional model that checks its data before Keras uses them.

    Every batch is checked, whether it comes from arrays, `tf.data`, generators or
    `train_on_batch`. `call` checks the inputs, so that errors are more helpful than
    those of Keras. Values cannot be checked inside a compiled step, since JAX and XLA
    accept any index without an error. So they are checked on the host in the step
    functions, which all training and prediction loops call, and the first batch before
    Keras builds loss and metrics from it. Ragged tensors are found in the arguments,
    since Keras pads them with zeros before the first step on JAX and PyTorch.

    Args:
        inputs: `keras.KerasTensor`, or dict of these.
        outputs: `keras.KerasTensor`.
        dtype: Dtype policy of the model. Defaults to the global one.
        **kwargs: `name` and `trainable`.

    Attributes:
        score: String, the name of the metric that models are compared by, where larger
            is better, or `None`.
    """

    score: str | None = None

    def __init__(self, inputs, outputs, dtype=None, **kwargs):
        for name in kwargs.keys() - {"name", "trainable"}:  # Keras ignores them
            valid = {*inspect.signature(type(self).__init__).parameters, "name"}
            raise TypeError(
                f"An argument must be one of `{type(self).__name__}`. Received: "
                f"{name}={kwargs[name]!r}. "
                f"{nearest(name, valid) or f'Choose one of {sorted(valid)}.'}"
            )
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        if dtype is not None:
            # Keras scales the loss according to the policy of the outer model.
            self.dtype_policy = dtype
        self.input_spec = None  # replaced by `check_inputs`

    def check_inputs(self, inputs):
        """Raises `ValueError` unless the model accepts `inputs`.

        Args:
            inputs: Tensor or array, or a dict or list of these. Only the values of
                NumPy arrays are checked.
        """
        raise not_defined(
            self, "a checked model", "check_inputs", "nothing or raise `ValueError`"
        )

    @property
    def index_inputs(self):
        """Dict from the names of inputs that are indices to their upper bound.

        Such an input has shape `(batch, any)`, and all others are those of modalities.
        """
        return {}

    def has_values_to_check(self, name):
        """Returns whether `check_inputs` checks the values of the input of this name."""
        return False

    def check_scale(self, inputs):
        """Warns if the values of inputs are far from those that models learn from.

        Args:
            inputs: Array, or dict of arrays, of the first batch of a call of `fit`,
                `evaluate` or `predict` after `compile`.
        """

    def check_targets(self, targets):
        """Raises `ValueError` unless the loss accepts `targets`.

        Args:
            targets: NumPy array, or a nested structure of arrays.
        """

    def check_sample_weight(self, sample_weight):
        """Raises `ValueError` unless the loss accepts the weights of a batch.

        Args:
            sample_weight: Tensor or array, or a nested structure of these.
        """

    def check_class_weight(self, class_weight):
        """Raises `ValueError` unless the model has targets with such classes.

        Args:
            class_weight: Argument of `fit` or `train_on_batch` that is not `None`.
        """

    @property
    def needs_targets(self):
        """Whether the batches of `fit` and `evaluate` must have targets.

        A subclass with its own `train_step` or `compute_loss` may need none.
        """
        methods = (type(self).train_step, type(self).compute_loss)
        packages = {method.__module__.partition(".")[0] for method in methods}
        return self.loss is not None and packages <= {"keras", "keras_perceiver"}

    def call(self, inputs, training=None, mask=None):
        check_arrays((inputs,), self._input_names)
        inputs = _with_arrays(inputs, len(self.inputs))
        self.check_inputs(inputs)
        return super().call(inputs, training=training, mask=mask)

    fit = _of_arrays("fit")
    evaluate = _of_arrays("evaluate")
    predict = _of_arrays("predict")
    train_on_batch = _of_arrays("train_on_batch")
    test_on_batch = _of_arrays("test_on_batch")
    predict_on_batch = _of_arrays("predict_on_batch")

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Saves the model as a `.keras` file, see `keras.Model.save`.

        Args:
            filepath: Path that ends with `.keras`.
            overwrite: Boolean, see `keras.Model.save`.
            zipped: Boolean, see `keras.Model.save`.
            **kwargs: Other arguments of `keras.Model.save`.

        Raises:
            ValueError: if the path ends with `.h5` or `.hdf5`.
            FileNotFoundError: if its folder does not exist.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "Models are saved as `.keras` files, since Keras' older format HDF5 "
                f"cannot restore their layers. Received: filepath={str(filepath)!r}. End "
                "the path with `.keras`, or save the weights alone by `save_weights`."
            )
        folder = os.path.dirname(filepath)
        if folder and "://" not in folder and not os.path.isdir(folder):
            raise FileNotFoundError(
                "The folder of `filepath` must exist. Received: "
                f"filepath={str(filepath)!r}. Create the folder."
            )
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Exports the model for inference, see `keras.Model.export`.

        Args:
            filepath: Path of the file or folder.
            format: String, see `keras.Model.export`.
            **kwargs: Other arguments of `keras.Model.export`. `jax2tf_kwargs` defaults to
                constraints that an input and its mask have the same dynamic length.
        """
        is_jax = keras.backend.backend() == "jax" and format == "tf_saved_model"
        if is_jax and kwargs.get("input_signature") is None:
            kwargs.setdefault("jax2tf_kwargs", jax2tf_arguments(self))
        super().export(filepath, format, **kwargs)

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            self._build_optimizer()
            make = super().make_train_function
            self.train_function = _checked_steps(self, "train_function", make)
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            make = super().make_test_function
            self.test_function = _checked_steps(self, "test_function", make)
        return self.test_function

    def make_predict_function(self, force=False):
        if self.predict_function is None or force:
            make = super().make_predict_function
            self.predict_function = _checked_steps(self, "predict_function", make)
        return self.predict_function

    def _build_optimizer(self):
        """Creates the variables of the optimizer before the first step on TensorFlow.

        Keras creates them within the step, which makes tracing a third slower.
        """
        if keras.backend.backend() == "tensorflow" and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _symbolic_build(self, iterator=None, data_batch=None):
        def checked():
            # Read only if Keras needs a batch.
            for first, last, data in iterator:
                is_list = isinstance(data, list | tuple)
                batch = data[0] if is_list else next(data)
                self._check_batch(batch, self.needs_targets)
                yield first, last, [batch]

        if data_batch is not None:
            if self._has_replicas:  # whose batches TensorFlow's trainer has averaged
                self._check_structure(data_batch, self.needs_targets)
                data_batch = self._with_own_dtypes(data_batch)
            else:
                self._check_batch(data_batch, self.needs_targets)
        batches = None if iterator is None else checked()
        super()._symbolic_build(batches, data_batch)

    def _with_own_dtypes(self, batch):
        """Returns a batch whose inputs have the dtypes of those of the model."""
        x, *others = keras.utils.unpack_x_y_sample_weight(batch)
        if isinstance(x, dict):
            dtypes = {tensor.name: tensor.dtype for tensor in self.inputs}
            x = {k: keras.ops.cast(v, dtypes.get(k, v.dtype)) for k, v in x.items()}
        elif hasattr(x, "dtype"):
            x = keras.ops.cast(x, self.inputs[0].dtype)
        return keras.utils.pack_x_y_sample_weight(x, *others)

    @property
    def _has_replicas(self):
        strategy = getattr(self, "distribute_strategy", None)  # TensorFlow's
        return strategy is not None and strategy.num_replicas_in_sync > 1

    @property
    def _input_names(self):
        return [x.name for x in self.inputs]

    def _check_data(
        self, x=None, y=None, *_, validation_data=None, class_weight=None, **__
    ):
        """Checks the arguments of `fit`, `evaluate` and other methods."""
        if class_weight is not None:
            self.check_class_weight(class_weight)
        check_examples(x, y)
        check_is_one_array(x, len(self.inputs))
        x_val, *_ = keras.utils.unpack_x_y_sample_weight(validation_data)
        for data, inputs in (((x, y), x), (validation_data, x_val)):
            check_arrays(getattr(inputs, "element_spec", data), self._input_names)

    def _check_structure(self, batch, needs_targets):
        check_arrays(batch, self._input_names)
        if needs_targets:
            check_has_targets(batch, self._input_names)

    def _check_batch(self, batch, needs_targets, is_first=False):
        for part in replica_batches(batch):
            self._check_structure(part, needs_targets)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(part)
            if isinstance(x, dict):
                x = {k: self._host_array(k, v) for k, v in x.items()}
            elif hasattr(x, "shape"):
                x = self._host_array(self.inputs[0].name, x)
            self.check_inputs(x)
            if is_first:
                self.check_scale(x)
            leaves = keras.tree.flatten(y)
            if len(leaves) == 1 and not isinstance(y, dict):
                y = leaves[0]  # also the only one of a list
            if any(hasattr(leaf, "shape") for leaf in leaves):
                self.check_targets(keras.tree.map_structure(to_numpy, y))
            if sample_weight is not None:
                self.check_sample_weight(sample_weight)

    def _host_array(self, name, x):
        is_checked = name in self._input_names and self.has_values_to_check(name)
        return to_numpy(x) if is_checked else x


def _checked_steps(model, attribute, make):
    """Returns the step function of a model, with a check of its batches.

    Args:
        model: `CheckedModel`.
        attribute: String, the attribute that holds the function.
        make: Keras' method that sets that attribute.
    """
    backend = keras.backend.backend()
    is_predict = attribute == "predict_function"
    needs_targets = model.needs_targets and not is_predict
    is_first = True

    def made():
        make(force=True)
        return getattr(model, attribute)

    def checked(batches):
        nonlocal is_first
        for batch in batches:
            model._check_batch(batch, needs_targets, is_first)
            is_first = False
        return batches

    def taken(iterator):
        num_items = 1 if _GROUPS_STEPS else model.steps_per_execution
        items = list(itertools.islice(iterator, num_items))
        if not items:
            raise StopIteration
        for item in items:
            checked(_batches_of_steps(item, model.steps_per_execution))
        return items

    function = made()
    # TensorFlow would trace a step again without the ranks if one of them changes.
    functions = {}

    def traced(iterator):
        items = taken(iterator)
        ranks = ranks_of(items[0])
        if ranks not in functions:
            functions[ranks] = made() if functions else function
            setattr(model, attribute, traced)
        try:
            return functions[ranks](items)
        except BaseException:
            # TensorFlow creates no variables in a function whose first trace has failed.
            setattr(model, attribute, None)
            raise

    if backend == "jax":
        return lambda state, iterator: function(state, iter(taken(iterator)))
    if backend == "torch" or is_predict:
        return lambda batches: function(checked(batches))
    return traced


def _batches_of_steps(item, steps_per_execution):
    """Returns the batches of an item of the iterator that Keras gives to a function."""
    if not _GROUPS_STEPS or steps_per_execution == 1:
        return [item]
    if isinstance(item, list):  # the last ones, too few to be stacked
        return item
    num_steps = len(keras.tree.flatten(item)[0])
    return [
        keras.tree.map_structure(lambda x, i=i: x[i], item) for i in range(num_steps)
    ]


def to_numpy(x):
    """Returns a tensor as a NumPy array, of a distributed one the part of this host."""
    shards = () if getattr(x, "is_fully_addressable", True) else x.addressable_shards
    if shards:  # the shards of a distributed array on this host
        return np.concatenate([np.asarray(shard.data) for shard in shards])
    return keras.ops.convert_to_numpy(x) if hasattr(x, "shape") else x


def _with_arrays(inputs, num_inputs):
    """Returns inputs with nested lists of numbers converted to arrays."""
    if isinstance(inputs, dict):
        return {name: _with_arrays(x, 1) for name, x in inputs.items()}
    if not isinstance(inputs, (list, tuple)):
        return inputs
    if num_inputs > 1:
        return [_with_arrays(x, 1) for x in inputs]
    is_numbers = not any(hasattr(x, "shape") for x in keras.tree.flatten(inputs))
    return np.asarray(inputs) if inputs and is_numbers else inputs
