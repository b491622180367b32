"""A model that checks its inputs and targets on the host before each step."""

import sys

import keras
import numpy as np

from keras_perceiver._checks import not_defined
from keras_perceiver.models.symbolic_lengths import jax2tf_arguments
from keras_perceiver.models.trainer_guard import GuardedModel

# Since version 3.16, Keras stacks the batches of one execution on JAX.
_VERSION = tuple(int(part) for part in keras.__version__.split(".")[:2])
_GROUPS_STEPS = keras.backend.backend() == "jax" and _VERSION >= (3, 16)


class CheckedModel(GuardedModel):
    """A functional model that checks shapes and values before Keras uses them.

    Every batch is checked, whether it comes from arrays, `tf.data`, generators or
    `train_on_batch`. `call` checks the inputs, so that errors are more helpful than
    those of Keras. Values cannot be checked inside a compiled step, since JAX and XLA
    accept any index without an error. So they are checked on the host in the step
    functions, which all training and prediction loops call.

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

    def check_targets(self, targets):
        """Raises `ValueError` unless the loss accepts `targets`.

        Args:
            targets: NumPy array, or a nested structure of arrays.
        """

    def call(self, inputs, training=None, mask=None):
        inputs = _with_arrays(inputs, len(self.inputs))
        self.check_inputs(inputs)
        return super().call(inputs, training=training, mask=mask)

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
            super().make_train_function(force)
            self.train_function = _checked_steps(self, self.train_function)
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = _checked_steps(self, self.test_function)
        return self.test_function

    def make_predict_function(self, force=False):
        if self.predict_function is None or force:
            super().make_predict_function(force)
            is_list = keras.backend.backend() != "jax"
            make = _checked_lists if is_list else _checked_steps
            self.predict_function = make(self, self.predict_function)
        return self.predict_function

    def _build_optimizer(self):
        """Creates the variables of the optimizer before the first step on TensorFlow.

        Keras creates them within the step, which makes tracing a third slower.
        """
        if keras.backend.backend() == "tensorflow" and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _check_batch(self, batch):
        for part in _replica_batches(batch):
            x, y, _ = keras.utils.unpack_x_y_sample_weight(part)
            if isinstance(x, dict):
                x = {k: self._host_array(k, v) for k, v in x.items()}
            elif hasattr(x, "shape"):
                x = self._host_array(self.inputs[0].name, x)
            self.check_inputs(x)
            if any(hasattr(leaf, "shape") for leaf in keras.tree.flatten(y)):
                self.check_targets(keras.tree.map_structure(_to_numpy, y))

    def _host_array(self, name, x):
        return _to_numpy(x) if self.has_values_to_check(name) else x


def _checked_steps(model, function):
    """Returns a train or test function that checks its batches."""
    if keras.backend.backend() == "torch":
        return _checked_lists(model, function)

    def batches(iterator):
        taken = []
        for item in iterator:
            for batch in _batches_of_steps(item, model.steps_per_execution):
                model._check_batch(batch)
            taken.append(item)
            if len(taken) == model.steps_per_execution or _GROUPS_STEPS:
                break
        if not taken:
            raise StopIteration
        return taken

    if keras.backend.backend() == "tensorflow":
        return lambda iterator: function(batches(iterator))
    return lambda state, iterator: function(state, iter(batches(iterator)))


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


def _checked_lists(model, function):
    """Returns a function of a list of batches that checks its batches."""

    def checked(batches):
        for batch in batches:
            model._check_batch(batch)
        return function(batches)

    return checked


def _replica_batches(batch):
    """Yields the batches of the replicas of `tf.distribute` on this host."""
    tensorflow = sys.modules.get("tensorflow")
    leaves = keras.tree.flatten(batch)
    if tensorflow is None or not any(
        isinstance(x, tensorflow.distribute.DistributedValues) for x in leaves
    ):
        yield batch
        return
    replicas = [
        x.values if isinstance(x, tensorflow.distribute.DistributedValues) else (x,)
        for x in leaves
    ]
    for i in range(max(map(len, replicas))):
        one = [values[min(i, len(values) - 1)] for values in replicas]
        yield keras.tree.pack_sequence_as(batch, one)


def _to_numpy(x):
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
