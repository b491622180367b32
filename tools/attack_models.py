"""Attacks on models: damaged files, malformed requests and parallel threads."""

import concurrent.futures
import contextlib
import io
import random
import warnings

from attack_runs import is_close

NUM_CALLS = 10  # of each thread


def damaged(folder, count, seed):
    """Damages files, and passes them to the commands that read them."""
    import numpy as np

    from keras_perceiver.serving.manifest import write_manifest
    from tests.serving import models

    folder.mkdir()
    rng = random.Random(seed)
    model = models.image_model()
    model.save(folder / "model.keras")
    (folder / "image.png").write_bytes(models.png())
    np.savez(folder / "arrays.npz", image=models.random_arrays(3)["image"])
    write_manifest(models.write(model, folder / "export"))
    _write_checkpoint(folder / "checkpoints")
    predict = ("predict", folder / "model.keras")
    version = folder / "export" / "saved_model"
    cases = [
        (folder / "model.keras", (*predict, folder / "image.png")),
        (folder / "image.png", (*predict, folder / "image.png")),
        (folder / "arrays.npz", (*predict, folder / "arrays.npz")),
        *(
            (path, ("verify", version))
            for path in sorted(version.rglob("*"))
            if path.is_file()
        ),
        (folder / "checkpoints" / "step-0000000002.checkpoint", None),
    ]
    # The same number for each kind of file.
    kinds = [cases[:1], cases[1:2], cases[2:3], cases[3:-1], cases[-1:]]
    expected = {path: _read(path, words) for path, words in cases}
    outcomes = []
    for i in range(count):
        path, words = rng.choice(kinds[i % len(kinds)])
        content = path.read_bytes()
        try:
            path.write_bytes(_damaged(content, rng))
            outcomes.append(_outcome_of_damage(path, words, expected[path]))
        finally:
            path.write_bytes(content)
    return outcomes


def _write_checkpoint(folder):
    import numpy as np

    from keras_perceiver.training.checkpoints import Checkpoints

    for step in (1, 2):
        Checkpoints(folder).save(step, [np.arange(100.0) * step], {"history": {}})


def _damaged(content, rng):
    """Returns content with a random kind of damage."""
    place = rng.randrange(len(content))
    flipped = bytearray(content)
    flipped[place] ^= 1 << rng.randrange(8)
    return rng.choice(
        [
            bytes(flipped),
            bytes(flipped),  # the most difficult one
            content[:place],
            content[:place] + bytes(len(content) - place),
            b"",
            b"text",
        ]
    )


def _read(path, words):
    """Returns what a command prints for a file, and its error or `None`."""
    from keras_perceiver.cli import main as command
    from keras_perceiver.training.checkpoints import Checkpoints

    if words is None:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            checkpoint = Checkpoints(path.parent).load()
        text = str(found[0].message) if found else None
        return (checkpoint.step, checkpoint.arrays[0].tolist()), text
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        try:
            command(list(map(str, words)))
        except SystemExit as error:
            return output.getvalue(), str(error.code)
    return output.getvalue(), None


def _outcome_of_damage(path, words, expected):
    try:
        result, error = _read(path, words)
    except Exception as error:
        return f"{type(error).__name__} from the reader", False
    if error is None:
        is_same = result == expected[0]
        return ("same result" if is_same else "other result without an error"), is_same
    if words is None:
        return "warning, and the previous checkpoint is used", result[0] == 1
    is_named = path.name in f"{result} {error}" and "\n" not in error
    return f"error {'with' if is_named else 'without'} the name of the file", is_named


def requests(folder, count, seed):
    """Sends malformed requests to a test server, over gRPC and REST."""
    import keras

    from keras_perceiver.serving.client import GrpcClient, RestClient
    from tests.serving import models, server

    keras.utils.set_random_seed(1)
    path = models.write(models.image_model(), folder)
    rng = random.Random(seed)
    outcomes = []
    with (
        server.grpc_server("animals", path) as grpc,
        server.rest_server("animals", path) as rest,
    ):
        clients = [GrpcClient(grpc, "animals"), RestClient(rest, "animals")]
        good = {"image": [models.png()]}
        expected = [client.predict(good, "encoded")["logits"] for client in clients]
        for i in range(count):
            client, malformed = clients[i % 2], _MALFORMED[i // 2 % len(_MALFORMED)]
            outcomes.append(_outcome_of_request(client, *malformed(rng)))
            logits = client.predict(good, "encoded")["logits"]
            if not is_close(logits, expected[i % 2]):
                outcomes.append(("other answer to the next request", False))
        for client in clients:
            client.close()
    return outcomes


def _arrays(rng, shape, dtype="float32", value=None):
    import numpy as np

    array = np.random.default_rng(rng.randrange(100)).uniform(-1, 1, shape)
    if value is not None:
        array.flat[rng.randrange(array.size)] = value
    return array.astype(dtype)


def _encoded(rng, change):
    from tests.serving import models

    return {"image": [models.png(), change(models.png(), rng)]}, "encoded"


# Callables that return the inputs and the signature of a malformed request.
_MALFORMED = [
    lambda rng: _encoded(rng, lambda png, rng: b""),
    lambda rng: _encoded(rng, lambda png, rng: png[: rng.randrange(len(png) // 2)]),
    lambda rng: _encoded(rng, lambda png, rng: rng.randbytes(rng.randrange(1, 999))),
    lambda rng: _encoded(rng, lambda png, rng: png[:16] + b"\x7f" * 8 + png[24:]),
    lambda rng: _encoded(rng, lambda png, rng: b"GIF89a" + png),
    lambda rng: ({"image": _arrays(rng, (1, 6, 8, 3), value="nan")}, "serving_default"),
    lambda rng: ({"image": _arrays(rng, (1, 6, 8, 3), value="inf")}, "serving_default"),
    lambda rng: ({"image": _arrays(rng, (1, 6, 8, 1))}, "serving_default"),
    lambda rng: ({"image": _arrays(rng, (1, 8, 6, 3))}, "serving_default"),
    lambda rng: ({"image": _arrays(rng, (6, 8, 3))}, "serving_default"),
    lambda rng: ({"picture": _arrays(rng, (1, 6, 8, 3))}, "serving_default"),
    lambda rng: (
        {"image": _arrays(rng, (1, 6, 8, 3)), "more": _arrays(rng, (1,))},
        "serving_default",
    ),
    lambda rng: ({"image": _arrays(rng, (1, 6, 8, 3))}, "unknown"),
]


def _outcome_of_request(client, inputs, signature):
    from keras_perceiver.serving.client import ServingError

    try:
        client.predict(inputs, signature)
    except ServingError as error:
        codes = [c for c in ("INVALID_ARGUMENT", "NOT_FOUND") if c in str(error)]
        return f"error {codes[0] if codes else error}", bool(codes)
    return f"answer to {signature} with {list(inputs)}", False


def threads(folder, count, seed):
    """Calls `predict` of one model in parallel threads, ten times each."""
    import numpy as np

    from tests.serving import models

    model = models.image_model()
    inputs = [models.random_arrays(4, seed=i)["image"] for i in range(count)]
    expected = [model.predict(x, verbose=0) for x in inputs]

    def call(x, y):
        try:
            is_equal = np.allclose(model.predict(x, verbose=0), y, atol=1e-5)
        except Exception as error:
            return type(error).__name__, False
        return ("same outputs" if is_equal else "other outputs"), is_equal

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        calls = NUM_CALLS * list(zip(inputs, expected, strict=True))
        outcomes = list(pool.map(lambda pair: call(*pair), calls))
    return [*outcomes, call(inputs[0], expected[0])]
