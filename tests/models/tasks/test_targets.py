"""Targets and weights of classifiers: what the loss does not take is refused."""

import keras
import numpy as np
import pytest

from keras_perceiver import PerceiverClassifier, PerceiverMultiLabelClassifier
from tests.models.small import classifier, images, labels

TASKS = PerceiverClassifier, PerceiverMultiLabelClassifier


def test_losses_of_values_take_a_value_per_class():
    for cls in TASKS:
        model = classifier(cls=cls)
        model.compile("sgd", "mse", metrics=None)
        model.test_on_batch(images(), np.eye(4)[labels()])
        with pytest.raises(ValueError, match="takes values per class.*shape .6,"):
            model.fit(images(), labels(), verbose=0)


def test_labels_between_the_classes_are_refused():
    model = classifier()
    model.compile()
    with pytest.raises(
        ValueError, match=r"must be integers in .0, 4., .*such as [01]\.5"
    ):
        model.fit(images(), labels() / 2, verbose=0)


@pytest.mark.parametrize("class_weight", [{4: 2.0}, {"a": 2.0}, [1.0, 2.0]])
def test_weights_of_no_classes_are_refused(class_weight):
    model = classifier()
    model.compile()
    for method in (model.fit, model.train_on_batch):
        with pytest.raises(
            ValueError, match=r"keys in \[0, 4\).*Received: class_weight"
        ):
            method(images(), labels(), class_weight=class_weight)
    model = classifier(cls=PerceiverMultiLabelClassifier)
    model.compile()
    with pytest.raises(ValueError, match="one class per example.*Pass `sample_weight`"):
        model.fit(images(), np.eye(4)[labels()], class_weight={0: 2.0})


def test_soft_labels_are_probabilities():
    model = classifier()
    soft = np.full((6, 4), 0.25, "float16")
    for loss in ("auto", keras.losses.CategoricalCrossentropy(from_logits=True)):
        model.compile("sgd", loss)
        model.test_on_batch(images(), soft)
        with pytest.raises(ValueError, match="Soft labels.*up to 2.*MultiLabel"):
            model.fit(images(), 2 * soft, verbose=0)
        with pytest.raises(ValueError, match="abels.*from -0.25"):
            model.fit(images(), soft - 0.5, verbose=0)
