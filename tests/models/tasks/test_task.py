"""Common behavior of tasks: defaults, files, outputs, reports, Keras' training features."""

import copy

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Image,
    ImagePreprocessor,
    Perceiver,
    PerceiverClassifier,
    PerceiverMultiLabelClassifier,
)
from keras_perceiver.models import (
    Accuracy,
    MeanAveragePrecision,
    SmoothedCrossentropy,
    Task,
)
from tests.models.small import SMALL, classifier, encoder, images, labels, values

TASKS = PerceiverClassifier, PerceiverMultiLabelClassifier
NAMES = ("a", "b", "c", "d")


def _targets(cls):
    return labels() if cls is PerceiverClassifier else np.eye(4)[labels()]


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize("cls", [PerceiverClassifier, PerceiverMultiLabelClassifier])
def test_defaults_train_and_are_saved(cls, tmp_path):
    model = classifier(cls=cls)
    assert not model.compiled
    model.compile()
    history = model.fit(images(), _targets(cls), verbose=0).history
    assert set(history) == {"loss", cls.score}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.evaluate(images(), _targets(cls), verbose=0)
    found = again.evaluate(images(), _targets(cls), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert again.optimizer.iterations == model.optimizer.iterations
    again.fit(images(), _targets(cls), verbose=0)


def test_a_task_without_its_methods_names_them():
    class Empty(Task):
        pass

    latents = encoder()
    model = Empty(latents, latents.output)
    for name, arguments in (
        ("default_loss", ()),
        ("default_metrics", ()),
        ("serving_outputs", (None,)),
        ("report", (None, None)),
    ):
        with pytest.raises(NotImplementedError, match=f"define `{name}`.*Empty"):
            getattr(model, name)(*arguments)
    with pytest.raises(NotImplementedError, match="define `target_spec`.*Empty"):
        model.target_spec  # noqa: B018


def test_compile_uses_its_arguments():
    model = classifier()
    model.compile("sgd", "mse")
    assert (model.loss, model.optimizer.name) == ("mse", "sgd")
    weighted = Accuracy(name="weighted")
    for options, names in (
        ({}, {"loss", "accuracy"}),
        ({"metrics": None}, {"loss"}),
        ({"weighted_metrics": [weighted]}, {"loss", "weighted"}),
    ):
        model = classifier()
        model.compile("sgd", **options)
        found = model.evaluate(images(), labels(), return_dict=True, verbose=0)
        assert set(found) == names
    model.compile(keras.optimizers.SGD(0.1), loss="auto", metrics=["accuracy"])
    assert isinstance(model.loss, SmoothedCrossentropy)


@pytest.mark.fast_on("torch")
@pytest.mark.parametrize(
    ("cls", "num_classes", "targets"),
    [
        (PerceiverClassifier, 1, labels() == 0),
        (PerceiverClassifier, 4, np.eye(4)[labels()]),
        (PerceiverMultiLabelClassifier, 3, np.eye(4)[labels(), :3]),
    ],
)
def test_names_of_the_accuracy_compare_logits(cls, num_classes, targets):
    model = classifier(num_classes, cls=cls)
    if num_classes != 4:  # logits that are positive, but less than 0.5
        kernel, bias = model.head.get_weights()
        model.head.set_weights([0 * kernel, bias + 0.25])
    logits = model.predict(images(), verbose=0)
    if num_classes == 4:
        expected = np.mean(logits.argmax(axis=1) == targets.argmax(axis=1))
    else:
        expected = np.mean((logits > 0) == np.reshape(targets, logits.shape))
        by_half = np.mean((logits > 0.5) == np.reshape(targets, logits.shape))
        assert expected != by_half
    model.compile(metrics=["accuracy"], weighted_metrics=["acc"])
    found = model.evaluate(images(), targets, verbose=0, return_dict=True)
    assert found["accuracy"] == found["acc"] == pytest.approx(expected)


def test_metrics_of_probabilities_are_refused():
    for metric in (
        keras.metrics.BinaryAccuracy(),
        keras.metrics.Precision(),
        keras.metrics.Recall(thresholds=[0.5]),
        keras.metrics.AUC(),
        "binary_accuracy",
    ):
        with pytest.raises(ValueError, match="takes probabilities.*`threshold=0.0`"):
            classifier().compile(metrics=[metric])
    for metric in (
        keras.metrics.BinaryAccuracy(threshold=0.0),
        keras.metrics.Precision(thresholds=0.0),
        keras.metrics.Recall(top_k=2),
    ):
        classifier().compile(metrics=[metric])


def test_a_file_needs_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder of `filepath` must exist"):
        classifier().save(tmp_path / "none" / "model.keras")


@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_compile_arguments_are_saved(jit_compile, tmp_path):
    model = classifier()
    model.compile(jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        assert each.get_compile_config()["jit_compile"] == jit_compile


@pytest.mark.parametrize("cls", TASKS)
def test_default_loss_is_smoothed(cls):
    model = classifier(cls=cls)
    y_true, y_pred = np.eye(4, dtype="float32"), np.eye(4, dtype="float32") * 3
    soft = 0.9 * y_true + (0.1 / 4 if cls is PerceiverClassifier else 0.1 * 0.5)
    smoothed = model.default_loss(label_smoothing=0.1)(y_true, y_pred)
    expected = model.default_loss()(soft.astype("float32"), y_pred)
    assert float(smoothed) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("cls", TASKS)
def test_names_and_preprocessors_are_saved(cls, tmp_path):
    preprocessor = {"image": ImagePreprocessor((3, 2, 1))}
    config = preprocessor["image"].get_config()
    model = cls(encoder(), 4, preprocessor=preprocessor, class_names=NAMES)
    model.save(tmp_path / "model.keras")
    for again in (
        keras.saving.load_model(tmp_path / "model.keras"),
        copy.deepcopy(model),
        cls.from_config(model.get_config()),
    ):
        assert type(again) is cls
        assert again.class_names == NAMES
        assert isinstance(again.preprocessor["image"], ImagePreprocessor)
        assert again.preprocessor["image"].get_config() == config
    for class_names in (list("abc"), list("abca")):
        with pytest.raises(
            ValueError, match="4 different names.*Pass one name per class"
        ):
            model.class_names = class_names
    for class_names in ("abcd", {*NAMES}, dict.fromkeys(NAMES)):
        with pytest.raises(TypeError, match="in the order of the labels.*Pass a list"):
            model.class_names = class_names
    with pytest.raises(ValueError, match="2 different names"):
        PerceiverClassifier(encoder(), 1, class_names=["only"])


def test_serving_outputs():
    logits = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    model = PerceiverClassifier(encoder(), 4, class_names=NAMES)
    powers = np.exp(logits)
    expected = powers / powers.sum(axis=1, keepdims=True)
    _check_outputs(model, logits, expected, [NAMES[i] for i in logits.argmax(1)])
    model = PerceiverMultiLabelClassifier(encoder(), 4, class_names=NAMES)
    expected = 1 / (1 + np.exp(-logits))
    _check_outputs(model, logits, expected, [NAMES[i] for i in logits.argmax(1)])
    model = PerceiverClassifier(encoder(), 1)
    yes = 1 / (1 + np.exp(-logits[:, :1]))
    classes = [str(int(x > 0)) for x in logits[:, 0]]
    _check_outputs(model, logits[:, :1], np.hstack([1 - yes, yes]), classes)


def _check_outputs(model, logits, probabilities, classes):
    outputs = {
        name: keras.ops.convert_to_numpy(x)
        for name, x in model.serving_outputs(
            keras.ops.convert_to_tensor(logits)
        ).items()
    }
    assert set(outputs) == {"logits", "probabilities", "classes"}
    np.testing.assert_array_equal(outputs["logits"], logits)
    np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-5)
    found = [x.decode() if isinstance(x, bytes) else x for x in outputs["classes"]]
    assert found == classes


@pytest.mark.parametrize("cls", TASKS)
def test_report_has_the_score(cls):
    model = classifier(cls=cls)
    y_pred = 4 * np.eye(4)[labels()]
    report = model.report(_targets(cls), y_pred)
    assert report.metrics()[cls.score] == 1
    assert report.class_names == tuple("0123")
    assert model.card_entries() == {"labels": list("0123")}


@pytest.mark.parametrize("cls", TASKS)
def test_mean_prediction_is_that_of_the_probabilities(cls):
    model = classifier(cls=cls)
    clips = np.random.default_rng(0).normal(size=(3, 6, 4))
    probabilities = [model.report(_targets(cls), x).probabilities for x in clips]
    mean = model.report(_targets(cls), model.mean_prediction(clips)).probabilities
    np.testing.assert_allclose(mean, np.mean(probabilities, axis=0), rtol=1e-6)


def test_accuracy_of_one_logit():
    metric = Accuracy()
    metric.update_state(np.array([0, 1, 1, 0]), np.array([[-1.0], [2], [-3], [4]]))
    assert float(metric.result()) == 0.5
    assert MeanAveragePrecision.from_config(
        MeanAveragePrecision(3).get_config()
    ).get_config() == {**MeanAveragePrecision(3).get_config()}


@pytest.mark.fast_on("torch")
def test_float16_of_the_encoder_scales_the_loss(tmp_path):
    model = classifier(dtype="mixed_float16")
    model.compile("adam")
    assert model.dtype_policy.name == "mixed_float16"
    assert model.encoder.dtype_policy.name == "mixed_float16"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.fit(images(), labels(), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.dtype_policy.name == "mixed_float16"
    assert isinstance(again.optimizer, keras.optimizers.LossScaleOptimizer)
    for old, new in zip(values(model), values(again), strict=True):
        np.testing.assert_array_equal(old, new)
    assert classifier().dtype_policy.name == "float32"


def _masked():
    """Returns a model with dict inputs, the inputs, and the loss of each example."""
    model = PerceiverClassifier(
        Perceiver(Image((3, 2, 1), num_bands=1, use_mask=True), **SMALL), 4
    )
    mask = np.random.default_rng(1).random((6, 3, 2)) > 0.4
    x = {"image": images(), "image_mask": mask}
    losses = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="none"
    )(labels(), model.predict(x, verbose=0))
    return model, x, keras.ops.convert_to_numpy(losses)


@pytest.mark.fast_on("torch")
def test_weights_of_examples_with_dict_inputs():
    model, x, losses = _masked()
    model.compile(keras.optimizers.SGD(0.0), weighted_metrics=[])
    weights = np.arange(6) / 5
    expected = np.mean(weights * losses)
    found = model.fit(x, labels(), sample_weight=weights, verbose=0).history["loss"]
    assert found == [pytest.approx(expected, rel=1e-5)]
    found = model.evaluate(x, labels(), sample_weight=weights, verbose=0)
    assert np.ravel(found)[0] == pytest.approx(expected, rel=1e-5)
    found = model.train_on_batch(x, labels(), sample_weight=weights)
    assert np.ravel(found)[0] == pytest.approx(expected, rel=1e-5)


def test_weights_of_classes_with_dict_inputs():
    model, x, losses = _masked()
    model.compile(keras.optimizers.SGD(0.0), weighted_metrics=[])
    class_weight = {0: 1.0, 1: 0.5, 2: 2.0, 3: 0.0}
    weights = np.array([class_weight[y] for y in labels()])
    expected = np.mean(weights * losses)
    found = model.fit(x, labels(), class_weight=class_weight, verbose=0).history["loss"]
    assert found == [pytest.approx(expected, rel=1e-5)]
    found = model.train_on_batch(x, labels(), class_weight=class_weight)
    assert np.ravel(found)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.fast_on("torch")
def test_swap_ema_weights():
    model = classifier()
    model.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5))
    trained, validated = [], []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            trained.append([w.numpy().copy() for w in self.model.trainable_weights])

        def on_test_begin(self, logs=None):
            validated.extend(w.numpy().copy() for w in self.model.trainable_weights)

    model.fit(
        images(),
        labels(),
        batch_size=3,
        validation_data=(images(), labels()),
        callbacks=[keras.callbacks.SwapEMAWeights(), Record()],
        verbose=0,
    )
    first, second = trained
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    # The average starts with the weights after the first step.
    for a, b, average in zip(first, second, validated, strict=True):
        np.testing.assert_allclose((a + b) / 2, average, atol=1e-6)


class CrashError(RuntimeError):
    pass


@pytest.mark.fast_on("torch")
def test_backup_and_restore(tmp_path):
    def train(crash_at=None):
        def crash(epoch, logs):
            if epoch == crash_at:
                raise CrashError

        model.fit(
            images(),
            labels(),
            epochs=4,
            shuffle=False,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(on_epoch_begin=crash),
                keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            ],
        )
        return values(model)

    def new():
        keras.utils.set_random_seed(0)
        model = classifier()
        model.compile(keras.optimizers.Adam(0.01))
        return model

    model = new()
    expected = train()
    model = new()
    with pytest.raises(CrashError):
        train(crash_at=2)
    model = new()
    for found, wanted in zip(train(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert int(model.optimizer.iterations) == 4
