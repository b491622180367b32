"""A stand-in for TF Serving over a SavedModel, for tests of clients, on both ports.

The services and messages are those of the serving API. Only the choice of the signature
and the error messages imitate the server. Like the server, it runs the warm-up requests of
a version before it answers others.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)


class _RefusedError(Exception):
    def __init__(self, code, details):
        super().__init__(details)
        self.code, self.details = code, details


class _Model:
    def __init__(self, name, path):
        self.name, self._signatures = name, tf.saved_model.load(path).signatures
        file = path / "assets.extra" / "tf_serving_warmup_requests"
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            request = log.predict_log.request
            inputs = {key: tf.make_ndarray(x) for key, x in request.inputs.items()}
            self.predict(name, request.model_spec.signature_name, inputs)

    def predict(self, name, signature, inputs):
        if name != self.name:
            raise _RefusedError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {name}"
            )
        if signature not in self._signatures:
            raise _RefusedError(
                grpc.StatusCode.NOT_FOUND,
                f'Serving signature key "{signature}" not found.',
            )
        function = self._signatures[signature]
        expected = function.structured_input_signature[1]
        if inputs.keys() != expected.keys():
            raise _RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"input must have keys {sorted(expected)}, has {sorted(inputs)}",
            )
        try:
            return function(
                **{k: tf.constant(x, expected[k].dtype) for k, x in inputs.items()}
            )
        except tf.errors.InvalidArgumentError as error:
            raise _RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self._model = model

    def Predict(self, request, context):  # noqa: N802
        inputs = {name: tf.make_ndarray(x) for name, x in request.inputs.items()}
        spec = request.model_spec
        try:
            outputs = self._model.predict(spec.name, spec.signature_name, inputs)
        except _RefusedError as refused:
            context.abort(refused.code, refused.details)
        response = predict_pb2.PredictResponse()
        for name, x in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(x.numpy()))
        return response


@contextlib.contextmanager
def grpc_server(name, path):
    """Serves a SavedModel over gRPC, and yields the address."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(_Model(name, path)), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def rest_server(name, path):
    """Serves a SavedModel over REST in its columnar format, and yields the address."""
    model = _Model(name, path)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = self.path.removeprefix("/v1/models/").removesuffix(":predict")
            inputs = {key: _from_json(x) for key, x in body["inputs"].items()}
            try:
                outputs = model.predict(asked, body["signature_name"], inputs)
            except _RefusedError as refused:
                is_missing = refused.code == grpc.StatusCode.NOT_FOUND
                self._answer(404 if is_missing else 400, {"error": refused.details})
            else:
                values = {key: _to_json(x.numpy()) for key, x in outputs.items()}
                self._answer(200, {"outputs": values})

        def _answer(self, code, body):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args):
            """Suppresses log messages."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _from_json(value):
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [base64.b64decode(x["b64"]) for x in value]
    return np.array(value)


def _to_json(array):
    return (array.astype(str) if array.dtype == object else array).tolist()
