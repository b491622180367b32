"""Weights survive errors on JAX, whose trainer moves them out of the model."""

import copy
import threading

import keras
import numpy as np
import pytest

from tests.models.small import classifier, images, labels, values

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class CrashError(RuntimeError):
    pass


def _crash(*_):
    raise CrashError


def _batches(*after):
    """Yields valid batches, then raises an error or yields the given batch."""
    for _ in range(2):
        yield images(), labels()
    if not after:
        raise CrashError
    yield from after


def _callback(name):
    return [keras.callbacks.LambdaCallback(**{name: _crash})]


def _test_callback(name):
    callback = keras.callbacks.Callback()
    setattr(callback, name, _crash)
    return [callback]


WRONG = np.zeros((6, 3, 5, 1), "float32")
RUNS = {
    "fit generator": lambda m: m.fit(_batches(), verbose=0),
    "fit shape": lambda m: m.fit(_batches((WRONG, labels())), verbose=0),
    "fit targets": lambda m: m.fit(images(), np.zeros((6, 3)), verbose=0),
    "train_on_batch targets": lambda m: m.train_on_batch(images(), np.zeros((6, 3))),
    "evaluate generator": lambda m: m.evaluate(_batches(), verbose=0),
    "evaluate shape": lambda m: m.evaluate(_batches((WRONG, labels())), verbose=0),
    "predict generator": lambda m: m.predict(_batches(), verbose=0),
    "predict shape": lambda m: m.predict(_batches((WRONG, labels())), verbose=0),
    "interrupt": lambda m: m.fit(
        images(), labels(), verbose=0, callbacks=_interrupts(), batch_size=2
    ),
    **{
        f"fit {name}": lambda m, name=name: m.fit(
            images(), labels(), batch_size=2, verbose=0, callbacks=_callback(name)
        )
        for name in (
            "on_train_batch_begin",
            "on_train_batch_end",
            "on_epoch_end",
            "on_train_end",
        )
    },
    **{
        f"validation {name}": lambda m, name=name: m.fit(
            images(),
            labels(),
            validation_data=(images(), labels()),
            verbose=0,
            callbacks=_test_callback(name),
        )
        for name in ("on_test_begin", "on_test_batch_begin", "on_test_batch_end")
    },
    **{
        f"evaluate {name}": lambda m, name=name: m.evaluate(
            images(), labels(), verbose=0, callbacks=_test_callback(name)
        )
        for name in ("on_test_batch_begin", "on_test_batch_end", "on_test_end")
    },
    **{
        f"predict {name}": lambda m, name=name: m.predict(
            images(), verbose=0, callbacks=_test_callback(name)
        )
        for name in ("on_predict_batch_begin", "on_predict_batch_end")
    },
}


def _interrupts():
    def interrupt(batch, logs):
        if batch == 1:
            raise KeyboardInterrupt

    return [keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)]


if keras.backend.backend() != "jax":  # other backends do not move the weights
    RUNS = {
        name: RUNS[name]
        for name in ("fit on_epoch_end", "predict on_predict_batch_end")
    }


@pytest.fixture(scope="module")
def trained():
    """A model that is used for all errors in turn."""
    model = classifier()
    # With a learning rate of zero, so that steps change nothing.
    model.compile(keras.optimizers.SGD(0.0), LOSS)
    return model


def _is_usable(model, before, path):
    """Checks that the weights are unchanged, and that everything works."""
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)
    model.save(path)
    loaded = keras.saving.load_model(path)
    found = model.predict(images(), verbose=0)
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), found)
    loss = model.evaluate(images(), labels(), verbose=0)[0]
    assert model.fit(images(), labels(), verbose=0).history["loss"] == [
        pytest.approx(loss, rel=1e-5)
    ]


@pytest.mark.parametrize("run", RUNS)
def test_weights_survive_an_error(trained, run, tmp_path):
    before = values(trained)
    with pytest.raises((CrashError, ValueError, KeyboardInterrupt, TypeError)):
        RUNS[run](trained)
    _is_usable(trained, before, tmp_path / "model.keras")


# tf.data has its own errors for generators.
if keras.backend.backend() != "tensorflow":

    def test_steps_before_an_error_are_kept():
        def train(data, error=None, num_steps=None):
            keras.utils.set_random_seed(0)
            model = classifier()
            model.compile(keras.optimizers.Adam(0.1), LOSS)
            if error is None:
                model.fit(data, verbose=0, steps_per_epoch=num_steps)
            else:
                with pytest.raises(error):
                    model.fit(data, verbose=0)
            return values(model)

        for data, error, num_steps in (
            # On JAX, Keras reads a batch ahead for GPUs.
            (_batches(), CrashError, 1 if _is_jax_on_gpu() else 2),
            (_batches((WRONG, labels())), ValueError, 2),
            (_batches((images(), labels() + 70)), ValueError, 2),
        ):
            expected = train(_batches((images(), labels())), num_steps=num_steps)
            for old, new in zip(expected, train(data, error), strict=True):
                np.testing.assert_allclose(old, new, rtol=1e-6)


def _is_jax_on_gpu():
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() != "cpu"


def test_a_callback_may_predict(trained):
    expected = trained.predict(images(), verbose=0)
    found = []

    def predict(*_, **__):  # not by `self.model`, which Keras sets on access
        found.append(trained.predict(images(), verbose=0))

    names = ("on_train_batch_begin", "on_train_batch_end", "on_epoch_end")
    callbacks = [keras.callbacks.LambdaCallback(**dict.fromkeys(names, predict))]
    trained.fit(images(), labels(), batch_size=3, verbose=0, callbacks=callbacks)
    assert len(found) == 5
    for prediction in found:
        np.testing.assert_allclose(prediction, expected, atol=1e-6)


def test_threads_may_predict(trained):
    before, expected = values(trained), trained.predict(images(), verbose=0)
    found, errors = [], []

    def predict():
        try:
            for _ in range(5):
                found.append(trained.predict(images(), verbose=0))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == 20
    for prediction in found:
        np.testing.assert_array_equal(prediction, expected)
    for old, new in zip(before, values(trained), strict=True):
        np.testing.assert_array_equal(old, new)


if keras.backend.backend() == "jax":

    def test_threads_do_not_wait_for_fit(trained):
        before, errors = values(trained), []

        def predict():
            try:
                trained.predict(images(), verbose=0)
            except RuntimeError as error:
                errors.append(str(error))

        def wait(batch, logs):
            thread = threading.Thread(target=predict)
            thread.start()
            thread.join()

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=wait)
        trained.fit(images(), labels(), verbose=0, callbacks=[callback])
        assert len(errors) == 1
        assert "only one thread" in errors[0]
        for old, new in zip(before, values(trained), strict=True):
            np.testing.assert_array_equal(old, new)


def test_averages_of_weights_survive_evaluation(tmp_path):
    model = classifier()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), LOSS)
    for _ in range(3):
        model.fit(images(), labels(), verbose=0)
        model.evaluate(images(), labels(), verbose=0)
        model.predict(images(), verbose=0)
    assert all(np.isfinite(weight).all() for weight in values(model))
    model.save(tmp_path / "model.keras")


def test_a_model_is_copied_with_its_guard(trained):
    again = copy.deepcopy(trained)
    assert type(again) is type(trained)
    for old, new in zip(values(trained), values(again), strict=True):
        np.testing.assert_array_equal(old, new)
    again.predict(images(), verbose=0)
