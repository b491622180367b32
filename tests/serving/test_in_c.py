"""The loader that TF Serving is built on, in a process without Python."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.serving import in_c, models

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return in_c.build(tmp_path_factory.mktemp("c"))


@pytest.mark.slow
def test_same_answers_without_python(program, tmp_path):
    keras.utils.set_random_seed(1)
    model = models.both_model()
    path = models.write(model, tmp_path / "export")
    arrays = models.random_arrays(7)
    arrays["image"][:3] /= 2
    files = {
        "image": [models.png((6 + i, 8, 3), i) for i in range(7)],
        "audio": [models.wav(10 + i, seed=i) for i in range(7)],
    }
    requests, expected = [], []
    signatures = tf.saved_model.load(path).signatures
    for size in (1, 7):
        request = {name: x[:size] for name, x in arrays.items()}
        requests.append(("serving_default", request, "logits"))
        expected.append(model.predict(request, verbose=0))
        request = {name: x[:size] for name, x in files.items()}
        requests.append(("encoded", request, "logits"))
        # tests/serving/test_signatures.py compares these with the evaluation data.
        answers = signatures["encoded"](
            **{k: tf.constant(x) for k, x in request.items()}
        )
        expected.append(answers["logits"])
    bad = {**files, "image": [*files["image"][:6], b"no image"]}
    requests.insert(1, ("encoded", bad, "logits"))
    wrong = {**arrays, "image": arrays["image"][:, :5]}
    requests.insert(2, ("serving_default", wrong, "logits"))

    answers = in_c.run(program, path, requests)
    (bad_answer, _), (wrong_answer, _) = answers.pop(1), answers.pop(1)
    assert "`image` must contain valid files" in bad_answer
    assert "examples [6]" in bad_answer
    assert "`image` must have shape (batch, 6, 8, 3)" in wrong_answer
    assert len(answers) == 4
    for (answer, milliseconds), logits in zip(answers, expected, strict=True):
        assert milliseconds > 0
        np.testing.assert_allclose(answer, np.ravel(logits), rtol=1e-5, atol=1e-5)


def test_python_in_the_graph_fails_there(program, tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None,), "float32", "x")])
    def with_python(x):
        return {"y": tf.numpy_function(lambda a: a + 1, [x], "float32")}

    module.with_python = with_python
    path = tmp_path / "python"
    tf.saved_model.save(module, str(path), signatures=with_python)
    x = np.ones(2, "float32")
    # In this process, where the function is defined, it works.
    np.testing.assert_array_equal(with_python(x)["y"], [2, 2])
    ((error, milliseconds),) = in_c.run(
        program, path, [("serving_default", {"x": x}, "y")]
    )
    assert milliseconds is None
    assert "PyFunc" in error
