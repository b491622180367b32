"""The client against a local service of the serving API."""

import json
import re
import socket

import keras
import numpy as np
import pytest

from keras_perceiver import ImagePreprocessor
from keras_perceiver.cli import main
from keras_perceiver.serving import client
from tests.serving import models, server

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]


@pytest.fixture(scope="module")
def model_and_path(tmp_path_factory):
    keras.utils.set_random_seed(1)
    model = models.image_model()
    return model, models.write(model, tmp_path_factory.mktemp("served") / "export")


@pytest.fixture(scope="module")
def grpc_address(model_and_path):
    with server.grpc_server("animals", model_and_path[1]) as address:
        yield address


@pytest.fixture(scope="module")
def rest_address(model_and_path):
    with server.rest_server("animals", model_and_path[1]) as address:
        yield address


@pytest.fixture(params=["grpc", "rest"])
def asking(request):
    """Returns a client for either port."""
    address = request.getfixturevalue(f"{request.param}_address")
    kind = client.GrpcClient if request.param == "grpc" else client.RestClient
    asking = kind(address, "animals")
    yield asking
    asking.close()


def test_same_numbers_as_in_the_notebook(asking, model_and_path, tmp_path):
    model, _ = model_and_path
    images = models.random_arrays(7)["image"]
    for size in (1, 7):
        answers = asking.predict({"image": images[:size]})
        logits = model.predict(images[:size], verbose=0)
        np.testing.assert_allclose(answers["logits"], logits, rtol=1e-5, atol=1e-5)
        best = [models.LABELS[i] for i in logits.argmax(-1)]
        assert answers["classes"].tolist() == best
    files = [models.png((9, 8, 3)), models.jpeg(seed=1)]
    read = []
    for file in files:
        (tmp_path / "file").write_bytes(file)
        read.append(ImagePreprocessor((6, 8, 3)).read(tmp_path / "file"))
    answers = asking.predict({"image": files}, "encoded")
    logits = model.predict(np.stack(read), verbose=0)
    np.testing.assert_allclose(answers["logits"], logits, rtol=1e-5, atol=1e-5)


def test_errors_state_the_fix_and_the_next_request_succeeds(asking):
    good = {"image": models.random_arrays(1)["image"]}
    files = [models.png(), b"no image"]
    with pytest.raises(
        client.ServingError,
        match=r"`image` must contain valid files.*\[1\].*INVALID_ARGUMENT",
    ):
        asking.predict({"image": files}, "encoded")
    with pytest.raises(
        client.ServingError, match=r"not respond: `image` must have shape.*\[1 6 8 1\]"
    ):
        asking.predict({"image": good["image"][..., :1]})
    with pytest.raises(client.ServingError, match=r"must have keys \['image'\]"):
        asking.predict({"picture": good["image"]})
    with pytest.raises(client.ServingError, match="signature.*NOT_FOUND.*Correct"):
        asking.predict(good, "none")
    assert asking.predict(good)["logits"].shape == (1, 4)


def test_unknown_model_and_missing_server(grpc_address, rest_address):
    inputs = {"image": models.random_arrays(1)["image"]}
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        for kind, address in (
            (client.GrpcClient, grpc_address),
            (client.RestClient, rest_address),
        ):
            asking = kind(address, "plants")
            with pytest.raises(client.ServingError, match="'plants'.*NOT_FOUND.*name"):
                asking.predict(inputs)
            asking.close()
            asking = kind(nobody, "animals", timeout=5)
            with pytest.raises(
                client.ServingError, match="UNAVAILABLE.*Start the serv"
            ):
                asking.predict(inputs)
            asking.close()


@pytest.mark.slow
def test_load_loses_nothing(grpc_address, model_and_path):
    model, _ = model_and_path
    images = models.random_arrays(8)["image"]
    expected = model.predict(images, verbose=0)
    asking = client.GrpcClient(grpc_address, "animals")
    inputs = [{"image": image[None]} for image in images]
    measured = client.load(asking, inputs, "serving_default", 2000, concurrency=16)
    asking.close()
    assert measured.errors == []
    answers = np.concatenate([answer["logits"] for answer in measured.answers])
    np.testing.assert_allclose(answers, np.tile(expected, (250, 1)), atol=1e-5)
    assert len(measured.milliseconds) == 2000
    assert measured.text().startswith("2000 answers, 0 errors, ")
    print(measured.text())


def test_load_counts_errors(rest_address):
    asking = client.RestClient(rest_address, "animals")
    good, bad = {"image": [models.png()]}, {"image": [b""]}
    measured = client.load(asking, [good, bad], "encoded", 6, concurrency=2)
    assert measured.text().startswith("3 answers, 3 errors, ")
    assert [answer is None for answer in measured.answers] == [False, True] * 3


def test_command(grpc_address, rest_address, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(models.png())
    np.save(tmp_path / "a.npy", models.random_arrays(2)["image"])
    np.savez(tmp_path / "a.npz", image=models.random_arrays(1)["image"])

    def ask(address, *words, model="animals"):
        main(["serve-client", address, model, *map(str, words)])
        return capsys.readouterr().out

    label = f"({'|'.join(models.LABELS)})"
    assert re.fullmatch(
        rf"a\.png  {label}  \d+\.\d %\n", ask(grpc_address, tmp_path / "a.png")
    )
    text = ask(rest_address, tmp_path / "a.npy", "--rest")
    assert re.fullmatch(rf"(a\.npy\[[01]\]  {label}  \d+\.\d %\n){{2}}", text)
    text = ask(grpc_address, tmp_path / "a.npy", "--json")
    first, second = map(json.loads, text.splitlines())
    assert list(first) == ["example", "classes", "logits", "probabilities"]
    assert sum(second["probabilities"]) == pytest.approx(1)
    options = ["--requests", "4", "--concurrency", "2"]
    text = ask(grpc_address, tmp_path / "a.npz", *options)
    assert text.startswith("4 answers, 0 errors")
    with pytest.raises(SystemExit, match="error: A request must have one"):
        ask(grpc_address, *[tmp_path / "a.npy"] * 2)
    with pytest.raises(SystemExit, match="error: .*'plants'.*NOT_FOUND"):
        ask(grpc_address, tmp_path / "a.npy", model="plants")
