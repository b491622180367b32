"""Data that are ragged, no numbers, or without targets are refused on every path."""

from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_perceiver import PerceiverClassifier
from tests.models.small import Batches, classifier, images, labels, values

BACKEND = keras.backend.backend()


def _batches(*batches):
    yield from batches


def _dataset(batch):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(batch)


def _loader(*arrays):
    import torch

    tensors = (torch.as_tensor(array) for array in arrays)
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*tensors), batch_size=3
    )


def _record_loader():
    import torch

    records = [
        {"image": x, "label": y} for x, y in zip(images(), labels(), strict=True)
    ]
    return torch.utils.data.DataLoader(records, batch_size=3)


def _ragged():
    """Returns images that JAX and PyTorch would pad to a valid shape."""
    import tensorflow as tf

    return tf.RaggedTensor.from_tensor(images())


def _ragged_labels():
    import tensorflow as tf

    return tf.RaggedTensor.from_row_lengths(labels(), [1, 2, 1, 0, 1, 1])


def _objects():
    different = np.empty(6, "object")
    different[:] = [np.zeros((1 + i, 2, 1)) for i in range(6)]
    return different


def _records():
    return {"image": images(), "label": labels()}


_NAMES = np.array(["cat", "dog", "cow"] * 2)
_RAGGED = "must be dense arrays. Received: a ragged tensor.*use_mask=True"
_UNLABELED = "needs targets.*Received: inputs without targets"
_RECORDS = (
    r"needs targets.*keys \['image', 'label'\].*batch\[\"image\"\].*as_supervised"
)
_OBJECTS = "Inputs must be dense arrays. Received: an array of arrays.*Pad"
_WORDS = (
    "Targets must be numbers. Received: .*Convert names of classes to their indices"
)
CASES = {
    "ragged fit": (lambda m: m.fit(_ragged(), labels(), verbose=0), _RAGGED),
    "ragged dataset": (lambda m: m.fit(_dataset((_ragged(), labels()))), _RAGGED),
    "ragged evaluate": (lambda m: m.evaluate(_dataset((_ragged(), labels()))), _RAGGED),
    "ragged predict": (lambda m: m.predict(_ragged(), verbose=0), _RAGGED),
    "ragged predict dataset": (lambda m: m.predict(_dataset((_ragged(),))), _RAGGED),
    "ragged train_on_batch": (lambda m: m.train_on_batch(_ragged(), labels()), _RAGGED),
    "ragged test_on_batch": (lambda m: m.test_on_batch(_ragged(), labels()), _RAGGED),
    "ragged predict_on_batch": (lambda m: m.predict_on_batch(_ragged()), _RAGGED),
    "ragged call": (lambda m: m(_ragged()), _RAGGED),
    "ragged validation": (
        lambda m: m.fit(
            images(), labels(), validation_data=_dataset((_ragged(), labels()))
        ),
        _RAGGED,
    ),
    "ragged targets": (
        lambda m: m.fit(_dataset((images(), _ragged_labels()))),
        "Targets must be dense.*ragged",
    ),
    "objects fit": (lambda m: m.fit(_objects(), labels()), _OBJECTS),
    "objects predict": (lambda m: m.predict(_objects()), _OBJECTS),
    "objects train_on_batch": (
        lambda m: m.train_on_batch(_objects(), labels()),
        _OBJECTS,
    ),
    "words fit": (lambda m: m.fit(images(), _NAMES), _WORDS),
    "words as objects": (lambda m: m.fit(images(), _NAMES.astype("object")), _WORDS),
    "words dataset": (lambda m: m.fit(_dataset((images(), _NAMES))), _WORDS),
    "words train_on_batch": (lambda m: m.train_on_batch(images(), _NAMES), _WORDS),
    "complex": (lambda m: m.predict(images() * 1j), "real numbers.*dtype complex64"),
    "path": (lambda m: m.predict("a.png"), "'a.png'. Read a file by `model.preproc"),
    "splits": (
        lambda m: m.fit(namedtuple("Splits", "train test")(images(), images())),
        "a Splits. Pass one of its attributes `.train`, `.test`",
    ),
    "no inputs": (lambda m: m.predict(None), "Received: x=None"),
    "no examples fit": (lambda m: m.fit(images(0), labels(0)), r"one example.*\(0, 3"),
    "no examples predict": (lambda m: m.predict(images(0)), r"one example.*\(0, 3"),
    "list of labels": (
        lambda m: m.fit(images(), labels().tolist()),
        r"Targets must be arrays. Received: the number 0.*np\.array",
    ),
    "list of numbers": (
        lambda m: m.predict(images().tolist()),
        "Inputs must be arrays",
    ),
    "unlabeled fit": (lambda m: m.fit(images(), verbose=0), _UNLABELED),
    "unlabeled dataset": (lambda m: m.fit(_dataset(images())), _UNLABELED),
    "unlabeled generator": (lambda m: m.fit(_batches((images(),))), _UNLABELED),
    "unlabeled sequence": (lambda m: m.fit(Batches((images(),))), _UNLABELED),
    "unlabeled loader": (lambda m: m.fit(_loader(images())), _UNLABELED),
    "unlabeled train_on_batch": (lambda m: m.train_on_batch(images()), _UNLABELED),
    "unlabeled test_on_batch": (lambda m: m.test_on_batch(images()), _UNLABELED),
    "unlabeled evaluate": (lambda m: m.evaluate(images(), verbose=0), _UNLABELED),
    "records fit": (lambda m: m.fit(_records()), _RECORDS),
    "records dataset": (lambda m: m.fit(_dataset(_records())), _RECORDS),
    "records sequence": (lambda m: m.fit(Batches(_records())), _RECORDS),
    "records generator": (lambda m: m.fit(_batches((_records(),))), _RECORDS),
    "records train_on_batch": (lambda m: m.train_on_batch(_records()), _RECORDS),
    "records evaluate": (lambda m: m.evaluate(_dataset(_records())), _RECORDS),
}
_VERSION = tuple(int(part) for part in keras.__version__.split(".")[:2])
if BACKEND == "torch":
    CASES["records loader"] = (lambda m: m.fit(_record_loader()), _RECORDS)
elif BACKEND == "jax" and _VERSION < (3, 16):  # later, Keras converts the keys first
    CASES["records loader"] = (
        lambda m: m.fit(_record_loader()),
        "must be arrays. Received: 'image', such as a key.*must be tuples",
    )
if BACKEND == "tensorflow" or (BACKEND == "jax" and _VERSION < (3, 16)):
    # Otherwise Keras converts the batches, which fails, before they can be checked.
    CASES["ragged generator"] = (
        lambda m: m.predict(_batches((_ragged(),))),
        "must be dense arrays",
    )
    CASES["ragged sequence"] = (
        lambda m: m.fit(Batches((_ragged(), labels()))),
        "must be dense arrays",
    )


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
@pytest.mark.parametrize("case", CASES)
def test_data_are_refused_before_loss_and_metrics_are_built(case, model):
    run, message = CASES[case]
    model.compile("sgd")  # Keras builds loss and metrics from the first batch
    before = values(model)
    with pytest.raises(ValueError, match=message):
        run(model)
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.fast_on("torch")
def test_a_model_learns_after_an_error():
    is_broken = [True]

    def loss(y_true, y_pred):
        if is_broken:
            raise RuntimeError("broken")
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, True)

    model = classifier()
    model.compile("sgd", loss)
    for data in (_records(), images()):
        with pytest.raises(ValueError, match="needs targets"):
            model.fit(_dataset(data), verbose=0, shuffle=False)
    with pytest.raises(RuntimeError, match="broken"):  # in the trace of a step
        model.fit(images(), labels(), verbose=0)
    is_broken.clear()
    assert np.isfinite(model.fit(images(), labels(), verbose=0).history["loss"]).all()


class Unsupervised(PerceiverClassifier):
    """A subclass whose loss needs no targets."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **_):
        return keras.ops.mean(y_pred**2)


def test_a_subclass_may_learn_without_targets():
    model = classifier(cls=Unsupervised)
    model.compile("sgd", metrics=[])
    assert np.isfinite(model.fit(images(), verbose=0).history["loss"]).all()


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # Keras' own
def test_labels_of_unknown_rank_and_unused_entries_are_accepted():
    import tensorflow as tf

    def with_unknown_rank(x, y):
        return x, tf.py_function(lambda y: y, [y], y.dtype)

    model = classifier()
    model.compile("sgd")
    data = _dataset((images(), labels())).map(with_unknown_rank)
    assert data.element_spec[1].shape.rank is None
    history = model.fit(data, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
    found = model.predict(_dataset(_records()), verbose=0)
    np.testing.assert_allclose(found, model.predict(images(), verbose=0), atol=1e-6)
