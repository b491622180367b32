"""Outputs and errors of the signatures."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2
from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting
from tensorflow.python.tools import saved_model_cli
from tensorflow_serving.apis import prediction_log_pb2

from keras_perceiver import (
    AudioPreprocessor,
    Image,
    ImagePreprocessor,
    Perceiver,
    PerceiverMultiLabelClassifier,
    PointCloud,
    Sequence,
)
from keras_perceiver.data import read_folder
from keras_perceiver.serving import encoded, graph
from tests.serving import models
from tests.serving.in_c import signature_defs

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The model of both modalities, the path of its SavedModel, and its signatures."""
    keras.utils.set_random_seed(1)
    model = models.both_model()
    path = models.write(model, tmp_path_factory.mktemp("both") / "export")
    return model, path, tf.saved_model.load(path).signatures


def _ask(signature, inputs):
    answers = signature(**{name: tf.constant(x) for name, x in inputs.items()})
    return {name: x.numpy() for name, x in answers.items()}


def _refusal(signature, inputs):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        _ask(signature, inputs)
    return re.search(r"assertion failed: \[(.*)\]\n", str(error.value))[1]


def test_named_outputs(both):
    model, _, signatures = both
    for size, length in ((1, 40), (7, 23)):
        inputs = models.random_arrays(size, length)
        answers = _ask(signatures["serving_default"], inputs)
        logits = model.predict(inputs, verbose=0)
        np.testing.assert_allclose(answers["logits"], logits, rtol=1e-5, atol=1e-5)
        powers = np.exp(logits)
        np.testing.assert_allclose(
            answers["probabilities"], powers / powers.sum(-1, keepdims=True), rtol=1e-4
        )
        names = [models.LABELS[best].encode() for best in logits.argmax(-1)]
        assert answers["classes"].tolist() == names


def test_server_sees_names_shapes_and_no_python(both, capsys):
    _, path, _ = both
    definitions = signature_defs(path)
    table = {
        signature: {
            name: (tf.as_dtype(x.dtype).name, tf.TensorShape(x.tensor_shape).as_list())
            for name, x in definition.inputs.items()
        }
        for signature, definition in definitions.items()
        if signature != "__saved_model_init_op"
    }
    assert table == {
        "serving_default": {
            "image": ("float32", [None, 6, 8, 3]),
            "audio": ("float32", [None, None]),
            "audio_mask": ("bool", [None, None]),
        },
        "encoded": {"image": ("string", [None]), "audio": ("string", [None])},
    }
    outputs = {"logits", "probabilities", "classes"}
    assert set(definitions["encoded"].outputs) == outputs
    # As `saved_model_cli show` and `scan` do.
    saved_model_cli._show_all(str(path))
    meta_graph = saved_model_cli.get_meta_graph_def(str(path), "serve")
    saved_model_cli.scan_meta_graph_def(meta_graph, {"ReadFile", "WriteFile", "PyFunc"})
    shown = capsys.readouterr().out
    assert "does not contain the default denylisted ops" in shown
    assert "signature_def['encoded']" in shown
    assert "shape: (-1, 6, 8, 3)" in shown
    functions = meta_graph.graph_def.library.function
    operations = {node.op for function in functions for node in function.node_def}
    assert "DecodeImage" in operations
    assert not [op for op in operations if "Py" in op]
    fingerprint = tf.saved_model.experimental.read_fingerprint(str(path))
    written = fingerprinting.CreateFingerprintDef(str(path))
    assert str(fingerprint.saved_model_checksum) in str(
        fingerprint_pb2.FingerprintDef.FromString(written)
    )
    size = sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
    assert size < both[0].count_params() * 4 + 5e6


def test_files_are_read_as_the_evaluation_data_are(both, tmp_path):
    model, _, signatures = both
    images = [
        *(models.png(), models.jpeg(seed=1)),
        *(models.png((20, 9, 3), 2), models.jpeg((3, 30, 3), 3)),
    ]
    sounds = [models.wav(n, seed=n) for n in (40, 1, 60, 17)]
    folder = tmp_path / "class"
    folder.mkdir()
    for i, (image, sound) in enumerate(zip(images, sounds, strict=True)):
        (folder / f"{i}.png").write_bytes(image)
        (folder / f"{i}.wav").write_bytes(sound)
    files = {
        "image": ImagePreprocessor((6, 8, 3)),
        "audio": AudioPreprocessor(8000, 40, True),
    }
    data = read_folder(tmp_path, files, batch_size=4, shuffle=False).dataset
    ((inputs, _),) = data
    expected = model.predict_on_batch(inputs)
    for some in (slice(0, 4), slice(2, 3)):
        request = {"image": images[some], "audio": sounds[some]}
        logits = _ask(signatures["encoded"], request)["logits"]
        np.testing.assert_allclose(logits, expected[some], rtol=1e-5, atol=1e-5)


def test_images_of_any_kind_and_size():
    """Raw inputs equal those of the host, as in the tests of preprocessors."""
    preprocessor = ImagePreprocessor((5, 4, 1), crop_to_aspect_ratio=True)

    @tf.function(input_signature=[tf.TensorSpec(None, "string")])
    def decode(contents):
        return encoded.decode("image", contents, preprocessor, use_mask=True)

    contents = [models.png((n, 7, 1), n) for n in range(1, 12)]
    contents.append(models.jpeg((9, 6, 1)))
    decoded = decode(contents)
    expected = [preprocessor.read_content(content) for content in contents]
    np.testing.assert_allclose(decoded["image"], expected, rtol=0, atol=1e-6)
    assert decoded["image_mask"].shape == (12, 5, 4)
    assert decoded["image_mask"].numpy().all()


def test_waveforms_without_a_mask_and_of_any_length(tmp_path):
    fixed = AudioPreprocessor(8000, 10)

    @tf.function(input_signature=[tf.TensorSpec(None, "string")])
    def decode(contents):
        return encoded.decode("sound", contents, fixed, use_mask=False)

    contents = [models.wav(10), models.wav(12, seed=1)]
    (tmp_path / "a.wav").write_bytes(contents[1])
    decoded = decode(contents)["sound"].numpy()
    np.testing.assert_array_equal(decoded[1], fixed.read(tmp_path / "a.wav"))
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"`sound` must contain valid files.*\[1\] .*shorter than 10.*length 9",
    ):
        decode([contents[0], models.wav(9)])

    padded = encoded.decode(
        "a", tf.constant([models.wav(3), models.wav(5)]), AudioPreprocessor(8000), True
    )
    assert padded["a_mask"].numpy().tolist() == [[True] * 3 + [False] * 2, [True] * 5]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image": np.zeros((2, 6, 9, 3))}, r"`image`.*6, 8, 3.*\[2 6 9 3\].*Change"),
        ({"image": np.zeros((2, 6, 8, 1))}, r"`image` must have shape.*\[2 6 8 1\]"),
        ({"image": np.zeros((6, 8, 3))}, r"`image` must have shape.*\[6 8 3\]"),
        ({"image": np.zeros((0, 6, 8, 3))}, r"`image` must have shape.*\[0 6 8 3\]"),
        (
            {"image": np.zeros((1, 6, 8, 3))},
            r"the same number of examples.*\[1 2\].*Send all",
        ),
        ({"audio": np.zeros((2, 41))}, r"`audio`.*at most 40.*\[2 41\]"),
        ({"audio": np.zeros((2, 0))}, r"`audio`.*\[2 0\]"),
        ({"audio_mask": np.ones((2, 39))}, r"`audio_mask`.*\[2 40\].*\[2 39\]"),
        ({"audio_mask": np.ones((3, 40))}, r"`audio_mask`.*\[2 40\].*\[3 40\]"),
    ],
)
def test_wrong_shapes_are_named(both, change, match):
    _, _, signatures = both
    good = models.random_arrays(2)
    bad = {name: x.astype(good[name].dtype) for name, x in change.items()}
    assert re.search(match, _refusal(signatures["serving_default"], {**good, **bad}))
    # The next request succeeds.
    assert _ask(signatures["serving_default"], good)["logits"].shape == (2, 4)


def test_nan_is_an_error_except_in_padding(both):
    _, _, signatures = both
    inputs = models.random_arrays(4)
    inputs["image"][2, 0, 0, 0] = np.nan
    inputs["image"][3, 5, 7, 2] = np.inf
    message = _refusal(signatures["serving_default"], inputs)
    assert re.search(r"`image` must be finite.*examples \[2 3\]", message)
    inputs = models.random_arrays(4)
    expected = _ask(signatures["serving_default"], inputs)["logits"]
    inputs["audio"][~inputs["audio_mask"]] = np.nan
    answers = _ask(signatures["serving_default"], inputs)["logits"]
    np.testing.assert_allclose(answers, expected, rtol=1e-6, atol=1e-6)
    inputs["audio"][1] = np.nan
    message = _refusal(signatures["serving_default"], inputs)
    assert re.search(r"`audio` must be finite.*examples \[1\]", message)


def _bomb():
    """Returns a file with 100 megapixels according to its header."""
    return tf.io.encode_png(tf.zeros((10_000, 10_000, 1), "uint8")).numpy()


@pytest.mark.parametrize(
    ("name", "bad", "match"),
    [
        ("image", b"", "PNG, JPEG, BMP or GIF"),
        ("image", b"an image", "PNG, JPEG, BMP or GIF"),
        ("image", models.png()[:-20], "cannot be decoded"),
        ("image", models.jpeg()[:60], "cannot be decoded"),
        ("image", models.png((6, 8, 1)), r"3 channels.*channels=1\. Convert"),
        ("image", _bomb, "max_pixels=89478485.*10000 x 10000"),
        ("audio", b"", "WAV files"),
        ("audio", models.png(), "WAV files"),
        ("audio", models.wav()[:30], "samples that its header declares"),
        ("audio", models.wav(sample_rate=16000), "8000` hertz.*sample_rate=16000"),
        ("audio", models.wav(channels=2), "mono.*2 channels"),
    ],
)
def test_bad_files_are_named_by_their_index(both, name, bad, match):
    _, _, signatures = both
    good = {
        "image": [models.png(seed=i) for i in range(3)],
        "audio": [models.wav(20 + i) for i in range(3)],
    }
    files = list(good[name])
    files[1] = bad() if callable(bad) else bad
    message = _refusal(signatures["encoded"], {**good, name: files})
    assert re.search(rf"`{name}` must contain .*examples \[1\]", message)
    assert re.search(match, message)
    assert _ask(signatures["encoded"], good)["logits"].shape == (3, 4)
    if name == "image":
        message = _refusal(signatures["encoded"], {**good, name: [files[1]] * 3})
        assert re.search(r"examples \[0 1 2\]", message)


def test_shape_of_a_list_of_files(both):
    _, _, signatures = both
    for images in ([[models.png()]], np.zeros((0,), "S1")):
        request = {"image": images, "audio": [models.wav()]}
        message = _refusal(signatures["encoded"], request)
        assert re.search(r"`image` must have shape \(batch\)", message)


def test_ids_points_and_dynamic_sizes(tmp_path):
    modality = {
        "text": Sequence(9, 7, 5, num_bands=2, use_mask=True),
        "points": PointCloud(num_bands=2),
        "image": Image((None, 4, 1), num_bands=2, max_resolution=8, patch_size=2),
    }
    model = Perceiver(
        modality,
        num_latents=3,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
    )
    path = models.write(model, tmp_path / "export")
    signature = tf.saved_model.load(path).signatures["serving_default"]
    rng = np.random.default_rng(0)
    good = {
        "text": rng.integers(0, 7, (3, 6)).astype("int32"),
        "text_mask": np.ones((3, 6), bool),
        "points": rng.uniform(-1, 1, (3, 11, 3)).astype("float32"),
        "image": rng.uniform(-1, 1, (3, 6, 4, 1)).astype("float32"),
    }
    answers = _ask(signature, good)
    assert set(answers) == {"latents"}
    expected = model.predict(good, verbose=0)
    np.testing.assert_allclose(answers["latents"], expected, rtol=1e-5, atol=1e-5)
    text = good["text"].copy()
    text[2, 4] = 7
    message = _refusal(signature, {**good, "text": text})
    assert re.search(r"`text` must be in \[0, 6\].*examples \[2\]", message)
    message = _refusal(signature, {**good, "image": good["image"][:, :5]})
    assert re.search(r"`image`.*a multiple of 2.*\[3 5 4 1\]", message)
    message = _refusal(signature, {**good, "points": good["points"][..., :2]})
    assert re.search(r"`points` must have shape \(batch, any, 3\)", message)


@pytest.mark.parametrize("weights", ["float16", "bfloat16", "int8"])
@pytest.mark.slow
def test_quantized_weights_are_stored_and_restored(weights, tmp_path):
    from keras_perceiver.serving.weights import quantized_copy

    model = models.image_model(latent_dim=128)
    path = models.write(model, tmp_path / "export", weights=weights, preprocessors={})
    inputs = {"image": models.random_arrays(3)["image"]}
    logits = _ask(tf.saved_model.load(path).signatures["serving_default"], inputs)
    expected = quantized_copy(model, weights).predict(inputs["image"], verbose=0)
    np.testing.assert_allclose(logits["logits"], expected, rtol=1e-5, atol=1e-5)
    size = sum(x.stat().st_size for x in (path / "variables").iterdir())
    part = size / (4 * model.count_params())
    assert part < {"float16": 0.55, "bfloat16": 0.55, "int8": 0.31}[weights]


def test_many_labels(tmp_path):
    model = models.image_model(cls=PerceiverMultiLabelClassifier)
    path = models.write(model, tmp_path / "export", preprocessors={})
    inputs = {"image": models.random_arrays(3)["image"]}
    answers = _ask(tf.saved_model.load(path).signatures["serving_default"], inputs)
    expected = 1 / (1 + np.exp(-answers["logits"]))
    np.testing.assert_allclose(answers["probabilities"], expected, rtol=1e-5)


def test_warm_up_requests_are_valid(both):
    _, path, signatures = both
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(file))
    ]
    seen = []
    for log in logs:
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(x) for name, x in request.inputs.items()}
        answers = _ask(signatures[request.model_spec.signature_name], inputs)
        seen.append((request.model_spec.signature_name, len(answers["logits"])))
        assert request.model_spec.name == "animals"
    names = ("serving_default", "encoded")
    assert seen == [(name, size) for name in names for size in (1, 3)]
    assert file.stat().st_size < 10_000


def test_one_modality_as_file_and_the_other_as_array(tmp_path):
    model = models.both_model()
    preprocessors = {"image": model.preprocessor["image"]}
    path = models.write(model, tmp_path / "export", preprocessors)
    signature = tf.saved_model.load(path).signatures["encoded"]
    arrays = models.random_arrays(1)
    answers = _ask(signature, {**arrays, "image": [models.png()]})
    arrays["image"] = preprocessors["image"].read_content(models.png())[None]
    expected = model.predict(arrays, verbose=0)
    np.testing.assert_allclose(answers["logits"], expected, rtol=1e-5, atol=1e-5)


def test_input_table_is_in_the_order_of_the_model():
    model = models.both_model()
    assert list(graph.input_table(model, {})) == ["image", "audio", "audio_mask"]


def test_graph_holds_each_layer_once(tmp_path):
    """For any number of blocks that share weights, and without gradients."""
    graphs = []
    for num_blocks in (3, 12):
        path = models.write(
            models.image_model(num_blocks=num_blocks), tmp_path / str(num_blocks)
        )
        saved = saved_model_pb2.SavedModel.FromString(
            (path / "saved_model.pb").read_bytes()
        )
        graphs.append(saved.meta_graphs[0].graph_def)
    sizes = [
        sum(len(function.node_def) for function in graph.library.function)
        for graph in graphs
    ]
    assert sizes[0] == sizes[1]
    names = [function.signature.name for function in graphs[0].library.function]
    assert names
    assert not [name for name in names if "grad" in name]
