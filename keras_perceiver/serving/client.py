"""A client of TF Serving: predictions over gRPC or REST, and load tests."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike


class ServingError(RuntimeError):
    """Raised when a request fails. The message has the reason and a fix."""


class GrpcClient:
    """A gRPC client, which for arrays is several times faster than REST.

    Args:
        address: String, `host:port`. The port of TF Serving is 8500.
        model: String, the name of the model on the server.
        version: Integer, or `None` for the latest version.
        timeout: Float, seconds to wait for a response.
    """

    def __init__(
        self,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        # Imported here, so that REST does not need them.
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self._grpc = grpc
        self._address, self._model = address, model
        self._version, self._timeout = version, timeout
        no_limit = {"grpc.max_send_message_length", "grpc.max_receive_message_length"}
        self._channel = grpc.insecure_channel(
            address, options=[(name, -1) for name in sorted(no_limit)]
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, inputs, signature="serving_default"):
        """Returns the outputs for a batch.

        Args:
            inputs: Dict from input names to arrays or lists of bytes.
            signature: String, name of the signature.

        Returns:
            Dict from output names to arrays. Text is an array of strings.

        Raises:
            ServingError: if the request fails.
        """
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model
        request.model_spec.signature_name = signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=self._timeout)
        except self._grpc.RpcError as error:
            raise _error(
                error.code().name, error.details(), self._address, self._model
            ) from error
        return {
            name: _texts(tf.make_ndarray(proto))
            for name, proto in response.outputs.items()
        }

    def close(self):
        """Closes the connection."""
        self._channel.close()


class RestClient:
    """A REST client, which only needs the standard library and NumPy.

    Args:
        address: String, `host:port`. The port of TF Serving is 8501.
        model: String, the name of the model on the server.
        version: Integer, or `None` for the latest version.
        timeout: Float, seconds to wait for a response.
    """

    def __init__(
        self,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._address, self._model, self._timeout = address, model, timeout
        versions = "" if version is None else f"/versions/{version}"
        self._url = f"http://{address}/v1/models/{model}{versions}:predict"

    def predict(self, inputs, signature="serving_default"):
        """Returns the outputs for a batch, as `GrpcClient.predict` does."""
        body = {
            "signature_name": signature,
            "inputs": {name: _to_json(value) for name, value in inputs.items()},
        }
        request = urllib.request.Request(  # noqa: S310  http, by the line above
            self._url,
            # JSON has no NaN, which the server reports.
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=self._timeout
            ) as response:
                outputs = _outputs(response.read())
        except urllib.error.HTTPError as error:
            codes = {404: "NOT_FOUND", 400: "INVALID_ARGUMENT"}
            code = codes.get(error.code, f"HTTP {error.code}")
            details = _json_error(error.read())
            raise _error(code, details, self._address, self._model) from error
        except TimeoutError as error:
            raise _error(
                "DEADLINE_EXCEEDED", str(error), self._address, self._model
            ) from error
        except ValueError as error:
            raise _error("UNKNOWN", str(error), self._address, self._model) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise _error(
                "UNAVAILABLE", str(error), self._address, self._model
            ) from error
        if not isinstance(outputs, dict):  # TF Serving's format of a single output
            outputs = {"outputs": outputs}
        return {name: np.array(value) for name, value in outputs.items()}

    def close(self):
        """Does nothing, since each request has its own connection."""


@dataclasses.dataclass(frozen=True)
class Load:
    """The result of a load test by `load`.

    Attributes:
        answers: List of the outputs of every request, `None` for failed requests.
        errors: List of the errors.
        milliseconds: Array of the latencies of successful requests.
        seconds: Float, total duration.
    """

    answers: list
    errors: list
    milliseconds: np.ndarray
    seconds: float

    def text(self):
        """Returns a summary on one line."""
        text = (
            f"{len(self.milliseconds)} answers, {len(self.errors)} errors, "
            f"{len(self.milliseconds) / self.seconds:.1f} answers/s"
        )
        if len(self.milliseconds):
            p50, p95, p99 = np.percentile(self.milliseconds, (50, 95, 99))
            text += f", p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms"
        return text


def load(
    client: GrpcClient | RestClient,
    inputs: dict | list[dict],
    signature: str,
    num_requests: int,
    concurrency: int,
) -> Load:
    """Sends many requests, several at a time, and measures latency and throughput.

    Args:
        client: `GrpcClient` or `RestClient`.
        inputs: Dict, see `GrpcClient.predict`, or list of dicts that are sent in turn.
        signature: String, name of the signature.
        num_requests: Integer, number of requests.
        concurrency: Integer, number of concurrent requests.

    Returns:
        `Load`.
    """
    inputs = inputs if isinstance(inputs, list) else [inputs]

    def ask(number):
        start = time.perf_counter()
        try:
            answer = client.predict(inputs[number % len(inputs)], signature)
        except ServingError as error:
            return None, error, 0.0
        return answer, None, 1e3 * (time.perf_counter() - start)

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        results = list(pool.map(ask, range(num_requests)))
    seconds = time.perf_counter() - start
    return Load(
        answers=[answer for answer, _, _ in results],
        errors=[error for _, error, _ in results if error is not None],
        milliseconds=np.array([ms for answer, _, ms in results if answer is not None]),
        seconds=seconds,
    )


def read_inputs(paths: Sequence[PathLike]) -> tuple[Any, str]:
    """Returns the inputs and the signature for files.

    Args:
        paths: List of paths of encoded files, or of one file with arrays.

    Raises:
        ServingError: if they cannot be sent in one request.
    """
    files = [Path(path) for path in paths]
    are_arrays = [file.suffix in (".npy", ".npz") for file in files]
    if any(are_arrays) and len(files) > 1:
        raise ServingError(
            "A request must have one .npy or .npz, or any number of other files. Received: "
            f"{[str(file) for file in files]}. Put the arrays in one .npz."
        )
    if are_arrays[0]:
        return read_arrays(files[0]), "serving_default"
    return [file.read_bytes() for file in files], "encoded"


def read_arrays(path: PathLike) -> Any:
    """Returns the array in a .npy file, or the dict of the arrays in a .npz file.

    Raises:
        ValueError: if the file is damaged or contains other data.
    """
    try:
        with Path(path).open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files}
    except Exception as error:  # NumPy raises errors of many classes
        raise ValueError(
            f"Arrays must be in a file of NumPy. Received: {str(path)!r} ({error}). It may "
            "be damaged or contain Python objects. Save it with `numpy.save`."
        ) from error


def _error(code, details, address, model):
    fixes = {
        "UNAVAILABLE": "Start the server, or correct the address (gRPC is on port 8500, "
        "REST on 8501).",
        "DEADLINE_EXCEEDED": "Increase `timeout`, or send fewer examples at once.",
        "NOT_FOUND": "Correct the name of the model, its version or the signature.",
        "INVALID_ARGUMENT": "Correct the request.",
        "RESOURCE_EXHAUSTED": "Send fewer requests at once, or smaller ones.",
    }
    # The messages of the graph's checks are between these words.
    _, found, checks = (details or "").partition("assertion failed: [")
    reason = checks.split("]\n")[0].split("] \t")[0] if found else details
    return ServingError(
        f"The model {model!r} at {address} did not respond: {reason} ({code}). "
        + fixes.get(code, "See the server's log.")
    )


def _json_error(body):
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")


def _outputs(body):
    """Returns the outputs in a REST response.

    Raises:
        ValueError: if there are none, for example if it is not from TF Serving.
    """
    answer = json.loads(body)
    if not isinstance(answer, dict) or "outputs" not in answer:
        raise ValueError(f"a response without `outputs`: {body[:100]!r}")
    return answer["outputs"]


def _to_json(value):
    if isinstance(value, list):
        return [{"b64": base64.b64encode(file).decode()} for file in value]
    return np.asarray(value).tolist()


def _texts(array):
    if array.dtype != object:
        return array
    texts = [text.decode() for text in array.flat]
    return np.array(texts, str).reshape(array.shape)
