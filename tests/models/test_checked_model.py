"""Shapes and values are checked on every path, without losing weights."""

import keras
import numpy as np
import pytest

from keras_perceiver import ImagePreprocessor, PerceiverMultiLabelClassifier
from tests.models.small import (
    NUM_CLASSES,
    Batches,
    classifier,
    encoder,
    images,
    labels,
    text_classifier,
    values,
)

BACKEND = keras.backend.backend()


def _dataset(*batches):
    import tensorflow as tf

    arrays = (np.stack(column) for column in zip(*batches, strict=True))
    return tf.data.Dataset.from_tensor_slices(tuple(arrays))


def _batches(*batches):
    yield from batches


def _sources(good, bad):
    """Returns calls of a model with a valid batch, then an invalid one."""
    x, y = (np.concatenate(pair) for pair in zip(good, bad, strict=True))
    options = {"verbose": 0}
    return {
        "fit": lambda m: m.fit(x, y, batch_size=6, shuffle=False, **options),
        "fit dataset": lambda m: m.fit(_dataset(good, bad), **options),
        "fit sequence": lambda m: m.fit(Batches(good, bad), shuffle=False, **options),
        "fit generator": lambda m: m.fit(_batches(good, bad), **options),
        "train_on_batch": lambda m: m.train_on_batch(*bad),
        "evaluate": lambda m: m.evaluate(x, y, batch_size=6, **options),
        "evaluate dataset": lambda m: m.evaluate(_dataset(good, bad), **options),
        "evaluate sequence": lambda m: m.evaluate(Batches(good, bad), **options),
        "evaluate generator": lambda m: m.evaluate(_batches(good, bad), **options),
        "test_on_batch": lambda m: m.test_on_batch(*bad),
        "validation": lambda m: m.fit(*good, validation_data=bad, **options),
        "validation dataset": lambda m: m.fit(
            *good, validation_data=_dataset(good, bad), **options
        ),
    }


_GOOD = images(), labels()
_BAD = images(), np.where(np.arange(6) == 2, 77, labels())
_SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
_RULE = r"Labels must be in \[0, 4\).*Received.*77.*Correct the labels"


@pytest.mark.parametrize("source", _sources(_GOOD, _BAD))
def test_labels_outside_the_classes_are_refused(source):
    model = classifier()
    # With a learning rate of zero, so that the valid batch changes nothing.
    model.compile(keras.optimizers.SGD(0.0), _SPARSE)
    before = values(model)
    with pytest.raises(ValueError, match=_RULE):
        _sources(_GOOD, _BAD)[source](model)
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_labels_are_refused_before_the_step():
    model = classifier()
    model.compile(keras.optimizers.SGD(1.0), _SPARSE)
    before = values(model)
    for run in (model.train_on_batch, model.fit):
        with pytest.raises(ValueError, match=_RULE):
            run(*_BAD)
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


_STEPS = [
    ("train_on_batch", {"jit_compile": True}),
    pytest.param(
        *("fit dataset", {"run_eagerly": True}),
        marks=pytest.mark.fast_on("torch", "tensorflow"),
    ),
]
if BACKEND != "torch":  # its compiler takes minutes, and an execution has one step
    _STEPS += [
        ("fit dataset", {"jit_compile": True}),
        ("evaluate", {"jit_compile": True}),
        ("fit dataset", {"steps_per_execution": 3}),
        ("evaluate", {"steps_per_execution": 3}),
    ]


@pytest.mark.parametrize(("source", "options"), _STEPS, ids=str)
def test_labels_are_refused_however_steps_run(source, options):
    model = classifier()
    model.compile(keras.optimizers.SGD(0.0), _SPARSE, **options)
    before = values(model)
    with pytest.raises(ValueError, match=_RULE):
        _sources(_GOOD, _BAD)[source](model)
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def _two_devices():
    """Returns a context in which Keras trains on two devices."""
    if BACKEND == "jax":
        return keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"]).scope()
    import tensorflow as tf

    # The default reduces by collective operations, whose keys a process has once: another
    # model under another strategy, in a test before, has used them for other shapes.
    reduction = tf.distribute.ReductionToOneDevice()
    devices = ["CPU:0", "CPU:1"]
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction).scope()


if BACKEND != "torch":  # Keras has no distribution on torch
    # TensorFlow occasionally waits for minutes to release an iterator that was not read
    # to its end, since its autotuning thread misses the cancellation.
    @pytest.mark.parametrize(
        ("source", "steps"),
        [
            ("fit dataset", 1),
            *(
                pytest.param(source, steps, marks=pytest.mark.fast_on("jax"))
                for source in ("fit", "evaluate", "validation")
                for steps in (1, 2)
            ),
        ],
    )
    def test_labels_are_refused_on_two_devices(source, steps):
        with _two_devices():
            model = classifier()
            model.compile(keras.optimizers.SGD(0.0), _SPARSE, steps_per_execution=steps)
            before = values(model)
            with pytest.raises(ValueError, match=_RULE):
                _sources(_GOOD, _BAD)[source](model)
            model.fit(*_GOOD, verbose=0)
            model.predict(_GOOD[0], verbose=0)
        for old, new in zip(before, values(model), strict=True):
            np.testing.assert_array_equal(old, new)

    @pytest.mark.slow
    def test_steps_per_execution_changes_nothing():
        def losses(steps, data):
            keras.utils.set_random_seed(0)
            model = classifier()
            model.compile(keras.optimizers.SGD(0.1), _SPARSE, steps_per_execution=steps)
            model.fit(data(), epochs=2, shuffle=False, verbose=0)
            return [*values(model), model.evaluate(data(), verbose=0)[0]]

        batches = [(images()[i : i + 2], labels()[i : i + 2]) for i in (0, 2, 4)]
        for data in (lambda: _dataset(*batches), lambda: Batches(*batches)):
            for one, two in zip(losses(1, data), losses(2, data), strict=True):
                np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("source", _sources(_GOOD, _GOOD))
@pytest.mark.fast_on("torch")
def test_unscaled_inputs_are_a_warning(source):
    far = 127.5 * (images() + 1), labels()
    model = classifier()
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.warns(UserWarning, match=r"`image` should be.*from .* to \d{3}.*127.5"):
        _sources(far, far)[source](model)
    # The range of a preprocessor is right for its model.
    model.preprocessor = ImagePreprocessor((3, 2, 1), value_range=(0, 255))
    model.compile(keras.optimizers.SGD(0.0))
    _sources(far, far)[source](model)


_ONE_HOT = np.eye(NUM_CLASSES)[labels()]
_CASES = {
    "column": (_SPARSE, labels()[:, None], None),
    "float": (_SPARSE, labels().astype("float32"), None),
    "float outside": (_SPARSE, np.full(6, 77.0), _RULE),
    "fraction": (_SPARSE, np.full(6, 1.5), r"in \[0, 4\).*such as 1.5"),
    "negative": (_SPARSE, np.full(6, -1), r"in \[0, 4\).*-1"),
    "list": ([_SPARSE], np.full(6, 4), r"in \[0, 4\)"),
    "ignored": (
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
        np.where(labels() == 1, -1, labels()),
        None,
    ),
    "not ignored": (
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
        np.full(6, -2),
        r"in \[0, 4\), the classes, or -1, which is ignored.*-2",
    ),
    "auto": ("auto", labels(), None),
    "auto soft": ("auto", 0.9 * _ONE_HOT + 0.1 / NUM_CLASSES, None),
    "auto one-hot": ("auto", _ONE_HOT.astype("int32"), None),
    "auto outside": ("auto", np.full(6, 4), r"in \[0, 4\)"),
    "not one-hot": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        labels(),
        r"values per class of shape `\(batch, 4\)`.*\(6,\).*auto",
    ),
    "one-hot of class indices": (_SPARSE, _ONE_HOT, r"class indices.*\(6, 4\).*auto"),
    "auto of other classes": ("auto", np.eye(5)[labels()], r"\(6, 5\).*number"),
    "from 1": (_SPARSE, labels() + 1, r"in \[0, 4\).*from 1 to 4.*Subtract 1"),
    "one-hot": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        _ONE_HOT.astype("int32"),
        None,
    ),
    "one-hot outside": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        2 * _ONE_HOT.astype("int32"),
        r"Labels must be in \[0, 1\]",
    ),
    "other loss": ("mse", 77 * _ONE_HOT, None),
}


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.fast_on("torch")
def test_the_range_of_labels_is_that_of_the_loss(case):
    loss, y, error = _CASES[case]
    model = classifier()
    model.compile("sgd", loss)
    _check_run(model, y, error)


def _check_run(model, y, error):
    if error is None:
        assert np.isfinite(model.train_on_batch(images(), y)).all()
        assert np.isfinite(model.fit(images(), y, verbose=0).history["loss"]).all()
        return
    with pytest.raises(ValueError, match=error):
        model.train_on_batch(images(), y)
    with pytest.raises(ValueError, match=error):
        model.evaluate(images(), y, verbose=0)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param("auto", marks=pytest.mark.fast_on("torch")),
        "keras",
    ],
)
def test_one_logit(loss):
    if loss == "keras":
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
    error = r"Labels must be in \[0, 1\].*to 2"
    for dtype, shape in (
        ("int32", (6,)),
        ("int32", (6, 1)),
        ("bool", (6,)),
        ("float32", (6, 1)),
    ):
        # A new model, since Keras rejects labels of another rank on TensorFlow.
        model = classifier(num_classes=1)
        model.compile("sgd", loss)
        y = (labels() % 2).astype(dtype).reshape(shape)
        assert np.isfinite(model.train_on_batch(images(), y)).all()
        with pytest.raises(ValueError, match=error):
            model.train_on_batch(images(), (labels() % 3).reshape(shape))


def test_the_targets_of_the_only_output_may_be_in_a_list():
    model = classifier()
    model.compile("sgd")
    assert np.isfinite(model.train_on_batch(images(), [labels()])).all()
    with pytest.raises(ValueError, match=_RULE):
        model.train_on_batch(images(), [_BAD[1]])


@pytest.mark.fast_on("torch")
def test_many_labels():
    model = classifier(cls=PerceiverMultiLabelClassifier)
    model.compile()
    _check_run(model, np.minimum(_ONE_HOT + _ONE_HOT[::-1], 1).astype("int32"), None)
    _check_run(model, _ONE_HOT + _ONE_HOT[:1], r"Labels must be in \[0, 1\].*to 2")


@pytest.mark.parametrize(
    "shape", [(6, 3, 2), (6, 3, 2, 2), (6, 3, 4, 1), (3, 2, 1), (6, 3, 2, 1, 1)]
)
def test_inputs_of_another_shape_are_rejected_without_a_step(shape):
    import tensorflow as tf

    model = classifier()
    model.compile("sgd", _SPARSE)
    expected = model.predict(images(), verbose=0)
    bad = np.zeros(shape, "float32")
    targets = np.zeros(len(bad), "int32")
    dataset = tf.data.Dataset.from_tensors((bad, targets))
    for run in (
        lambda: model.fit(bad, targets, verbose=0),
        lambda: model.fit(dataset, verbose=0),
        lambda: model.fit(_batches((bad, targets)), verbose=0),
        lambda: model.train_on_batch(bad, targets),
        lambda: model.evaluate(dataset, verbose=0),
        lambda: model.predict(bad, verbose=0),
        lambda: model.predict(dataset, verbose=0),
        lambda: model.predict(_batches((bad,)), verbose=0),
        lambda: model.predict_on_batch(bad),
        lambda: model(bad),
        lambda: model.encoder(bad),
        lambda: model.encoder.predict(bad, verbose=0),
        lambda: model(keras.ops.convert_to_tensor(bad)),
    ):
        with pytest.raises(
            ValueError, match="Images must have shape.*Received.*(resize|inputs)"
        ):
            run()
    np.testing.assert_array_equal(model.predict(images(), verbose=0), expected)


def test_ids_outside_the_vocabulary_are_refused():
    model = text_classifier()
    model.compile("sgd", _SPARSE)
    ids = np.zeros((6, 5), "int32")
    bad = ids + 7
    dataset = _dataset((ids, labels()), (bad, labels()))
    for run in (
        lambda: model.fit(bad, labels(), verbose=0),
        lambda: model.fit(dataset, verbose=0),
        lambda: model.evaluate(_batches((bad, labels())), verbose=0),
        lambda: model.train_on_batch(bad, labels()),
        lambda: model.predict(dataset, verbose=0),
        lambda: model.predict_on_batch(bad),
        lambda: model(bad),
    ):
        with pytest.raises(ValueError, match=r"must be in \[0, 6\]"):
            run()
    model.predict(ids, verbose=0)


@pytest.mark.fast_on("torch")
def test_nested_lists_are_arrays():
    for model in (classifier(), encoder()):
        expected = keras.ops.convert_to_numpy(model(images(2)))
        found = keras.ops.convert_to_numpy(model(images(2).tolist()))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        with pytest.raises(ValueError, match="Images must have shape"):
            model(images(2)[..., 0].tolist())


def test_missing_inputs_are_named():
    with pytest.raises(ValueError, match=r"the keys \['image'\].*Add"):
        encoder()({"picture": images()})
