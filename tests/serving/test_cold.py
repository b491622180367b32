"""The first requests to a server, all at the same time."""

import concurrent.futures
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_perceiver.serving import client
from tests.serving import in_c, models, server

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]

CONCURRENCY = 16
TIMEOUT = 30  # seconds, the client's default


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    keras.utils.set_random_seed(1)
    return models.write(
        models.image_model(), tmp_path_factory.mktemp("cold") / "export"
    )


def _check(answers, path):
    signatures = tf.saved_model.load(path).signatures
    expected = signatures["encoded"](image=tf.constant([models.png()]))["logits"]
    assert len(answers) == CONCURRENCY
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_server_that_has_warmed_up(path):
    with server.grpc_server("animals", path) as address:
        asking = client.GrpcClient(address, "animals", timeout=TIMEOUT)
        inputs = {"image": [models.png()]}
        measured = client.load(asking, inputs, "encoded", CONCURRENCY, CONCURRENCY)
        asking.close()
    assert measured.errors == []
    _check([answer["logits"] for answer in measured.answers], path)


def test_server_without_warm_up_requests(path):
    """TF Serving runs a model in a session as well."""
    signature = in_c.signature_defs(path)["encoded"]
    output = signature.outputs["logits"].name
    feed = {signature.inputs["image"].name: [models.png()]}
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(CONCURRENCY) as pool:
            answers = [
                pool.submit(session.run, output, feed) for _ in range(CONCURRENCY)
            ]
            answers = [answer.result(TIMEOUT) for answer in answers]
        assert time.monotonic() - start < TIMEOUT
    _check(answers, path)
