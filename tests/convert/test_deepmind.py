"""DeepMind's pickles: right weights, and nothing of a file is ever run."""

import math
import pickle
import sys
import types
from collections.abc import Mapping

import numpy as np
import pytest

from keras_perceiver.convert import load_deepmind
from tests import reference

SMALL = {"N": 6, "D": 16, "layers": 2, "classes": 5, "size": 12}
PUBLISHED = {"N": 512, "D": 1024, "layers": 6, "classes": 1000, "size": 224}
KINDS = ("fourier", "learned", "conv")
_BLOCKS = 8

_STEM = "image_preprocessor/~"
_DECODER = "classification_decoder/~/basic_decoder"


class FlatMapping(Mapping):
    """As Haiku's: immutable, and pickled as the class and a plain mapping."""

    def __init__(self, mapping):
        self._mapping = dict(mapping)

    def __getitem__(self, key):
        return self._mapping[key]

    def __iter__(self):
        return iter(self._mapping)

    def __len__(self):
        return len(self._mapping)

    def __reduce__(self):
        return FlatMapping, (self._mapping,)


@pytest.fixture
def haiku(monkeypatch):
    """The module of Haiku that a pickle names, without Haiku."""
    name = "haiku._src.data_structures"
    module = types.ModuleType(name)
    module.FlatMapping = FlatMapping
    monkeypatch.setattr(FlatMapping, "__module__", name)
    for part in ("haiku", "haiku._src"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)


def _parameters(kind, N, D, layers, classes, size):  # noqa: N803
    """Returns arrays by module and name, as the modules of Haiku create them."""
    rng = np.random.default_rng(0)
    found = {}

    def put(place, **shapes):
        found[place] = {
            name: (rng.normal(0.05, 1, shape) / math.sqrt(max(shape[0], 25))).astype(
                "float32"
            )
            for name, shape in shapes.items()
        }

    def norm(place, width):
        put(place, scale=(width,), offset=(width,))

    def linear(place, inputs, outputs):
        put(place, w=(inputs, outputs), b=(outputs,))

    def block(place, query, inputs, qk, is_cross=True):
        norm(f"{place}/layer_norm", query)
        if is_cross:
            norm(f"{place}/layer_norm_1", inputs)
        norm(f"{place}/layer_norm_{1 + is_cross}", query)
        linear(f"{place}/attention/linear", query, qk)
        linear(f"{place}/attention/linear_1", inputs, qk)
        linear(f"{place}/attention/linear_2", inputs, qk)
        linear(f"{place}/attention/linear_3", qk, query)
        linear(f"{place}/mlp/linear", query, query)
        linear(f"{place}/mlp/linear_1", query, query)

    width = {"fourier": 261, "learned": 512, "conv": 322}[kind]
    state = {}
    if kind == "learned":
        put(f"{_STEM}/conv2_d", w=(1, 1, 3, 256), b=(256,))
        place = f"{_STEM}_build_network_inputs"
        put(f"{place}/trainable_position_encoding", pos_embs=(size * size, 256))
        linear(f"{place}/position_encoding_projector/linear", 256, 256)
    elif kind == "conv":
        place = f"{_STEM}/conv2_d_downsample/~"
        put(f"{place}/conv", w=(7, 7, 3, 64))
        one = (1, 1, 1, 64)
        put(f"{place}/batchnorm", scale=one, offset=one)
        for name in ("mean_ema", "var_ema"):
            average = rng.uniform(0.5, 2, one).astype("float32")
            state[f"{place}/batchnorm/~/{name}"] = {
                "average": average,
                "hidden": average * 0.1,
                "counter": np.array(7, "int32"),
            }
    encoder = "perceiver_encoder/~"
    put(f"{encoder}/trainable_position_encoding", pos_embs=(N, D))
    block(f"{encoder}/cross_attention", D, width, width)
    for i in range(layers):
        block(f"{encoder}/self_attention{f'_{i}' if i else ''}", D, D, D, False)
    put(f"{_DECODER}/~/trainable_position_encoding", pos_embs=(1, D))
    block(f"{_DECODER}/cross_attention", D, D, D)
    linear(f"{_DECODER}/output", D, classes)
    return found, state


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _norm(x, w):
    return reference.layer_norm(x, w)


def _linear(x, w):
    return x @ w["w"].astype("float64") + w["b"]


def _attend(parameters, place, query, inputs=None, num_heads=1):
    """One block of DeepMind's code in float64."""

    def w(name):
        return parameters[f"{place}/{name}"]

    number = 1 if inputs is None else 2
    normed = _norm(query, w("layer_norm"))
    read = normed if inputs is None else _norm(inputs, w("layer_norm_1"))
    q = _linear(normed, w("attention/linear"))
    k, v = (_linear(read, w(f"attention/linear_{i}")) for i in (1, 2))
    heads = []
    for q_i, k_i, v_i in zip(*(np.split(x, num_heads, -1) for x in (q, k, v))):  # noqa: B905
        scores = q_i @ k_i.T / math.sqrt(q_i.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v_i)
    attended = _linear(np.concatenate(heads, -1), w("attention/linear_3"))
    is_residual = place != f"{_DECODER}/cross_attention" or not _is_learned(parameters)
    x = attended + query * is_residual
    hidden = _gelu(_linear(_norm(x, w(f"layer_norm_{number}")), w("mlp/linear")))
    return x + _linear(hidden, w("mlp/linear_1"))


def _is_learned(parameters):
    return f"{_STEM}/conv2_d" in parameters


def _logits(parameters, state, image):
    """The image classifier of Perceiver IO for one image, in float64."""
    size, arrays = image.shape[0], image.astype("float64")
    bands, resolution = 64, (224, 224)
    if _is_learned(parameters):
        w = parameters[f"{_STEM}/conv2_d"]
        elements = arrays.reshape(-1, 3) @ w["w"][0, 0].astype("float64") + w["b"]
        place = f"{_STEM}_build_network_inputs"
        table = parameters[f"{place}/trainable_position_encoding"]["pos_embs"]
        projector = parameters[f"{place}/position_encoding_projector/linear"]
        positions = _linear(table.astype("float64"), projector)
    else:
        if f"{_STEM}/conv2_d_downsample/~/conv" in parameters:
            arrays, resolution = _convolved(parameters, state, arrays), (56, 56)
        grid = arrays.shape[:2]
        elements = arrays.reshape(-1, arrays.shape[-1])
        positions = reference.fourier_features(grid, bands, resolution)
    assert size
    inputs = np.concatenate([elements, positions], -1)
    encoder = "perceiver_encoder/~"
    latents = parameters[f"{encoder}/trainable_position_encoding"]["pos_embs"]
    latents = _attend(
        parameters, f"{encoder}/cross_attention", latents.astype("float64"), inputs
    )
    layers = [p for p in parameters if p.endswith("/mlp/linear") and "self_att" in p]
    for _ in range(_BLOCKS):
        for layer in layers:
            latents = _attend(
                parameters, layer.removesuffix("/mlp/linear"), latents, num_heads=8
            )
    query = parameters[f"{_DECODER}/~/trainable_position_encoding"]["pos_embs"]
    outputs = _attend(
        parameters, f"{_DECODER}/cross_attention", query.astype("float64"), latents
    )
    return _linear(outputs, parameters[f"{_DECODER}/output"])[0]


def _convolved(parameters, state, image):
    """Convolution, batch norm, ReLU and pooling with TensorFlow's padding."""
    place = f"{_STEM}/conv2_d_downsample/~"

    def windows(x, size):
        outputs = -(-x.shape[0] // 2)
        total = max((outputs - 1) * 2 + size - x.shape[0], 0)
        border = (total // 2, total - total // 2)
        padding = -np.inf if size == 3 else 0.0
        x = np.pad(x, (border, border, (0, 0)), constant_values=padding)
        return [
            (i, j, x[i * 2 : i * 2 + size, j * 2 : j * 2 + size])
            for i in range(outputs)
            for j in range(outputs)
        ], outputs

    found, side = windows(image, 7)
    kernel = parameters[f"{place}/conv"]["w"].astype("float64")
    outputs = np.zeros((side, side, 64))
    for i, j, window in found:
        outputs[i, j] = np.tensordot(window, kernel, 3)
    norm = parameters[f"{place}/batchnorm"]
    mean, variance = (
        state[f"{place}/batchnorm/~/{name}"]["average"]
        for name in ("mean_ema", "var_ema")
    )
    outputs = (outputs - mean[0]) / np.sqrt(variance[0].astype("float64") + 1e-5)
    outputs = np.maximum(outputs * norm["scale"][0] + norm["offset"][0], 0)
    found, side = windows(outputs, 3)
    pooled = np.zeros((side, side, 64))
    for i, j, window in found:
        pooled[i, j] = window.max((0, 1))
    return pooled


def _write(path, parameters, state):
    wrapped = [
        FlatMapping({place: FlatMapping(arrays) for place, arrays in part.items()})
        for part in (parameters, state)
    ]
    content = {"params": wrapped[0], "state": wrapped[1]}
    path.write_bytes(pickle.dumps(content))


def _check(kind, sizes, path, **overrides):
    parameters, state = _parameters(kind, **sizes)
    _write(path, parameters, state)
    model = load_deepmind(path, **overrides)
    size = sizes["size"]
    image = np.random.default_rng(1).normal(size=(size, size, 3)).astype("float32")
    logits = model.predict(image[None], verbose=0)[0]
    expected = _logits(parameters, state, image)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    return model


@pytest.mark.usefixtures("haiku")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.fast_on("torch")
def test_equals_float64_reference(kind, tmp_path):
    path = tmp_path / "weights.pystate"
    model = _check(kind, SMALL, path, **{"modality.shape": (12, 12, 3)})
    assert model.preprocessor.crop_fraction == 0.875
    assert b"haiku._src.data_structures" in path.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("haiku")
@pytest.mark.parametrize("kind", KINDS)
def test_published_size_equals_float64_reference(kind, tmp_path):
    model = _check(kind, PUBLISHED, tmp_path / "weights.pystate")
    expected = {"fourier": 48_440_627, "learned": 62_255_848, "conv": 48_646_522}
    number = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert number == expected[kind]


class _Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.usefixtures("haiku")
def test_nothing_of_a_file_is_run(tmp_path):
    target, path = tmp_path / "written", tmp_path / "weights.pystate"
    for content in (
        _Malicious(target),
        {"params": {"a": {"w": _Malicious(target)}}, "state": {}},
        {"params": np.array([_Malicious(target)], object), "state": {}},
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"open is not allowed.*Nothing of it"):
            load_deepmind(path)
        assert not target.exists()


@pytest.mark.usefixtures("haiku")
def test_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "weights.pystate"
    parameters, state = _parameters("fourier", **SMALL)
    _write(path, parameters, state)
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"weights\.pystate must be a pickle"):
            load_deepmind(path)
    for content, message in (
        ({"a": 3}, "must contain arrays by module and name"),
        ({"a": {"w": 3}}, "must contain arrays of floats.*int as a/w"),
        (
            {"a": {"w": np.zeros(3, "float32")}},
            "must contain a Perceiver IO for images",
        ),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=message):
            load_deepmind(path)
    place = f"{_DECODER}/output"
    norm = f"{_DECODER}/cross_attention/layer_norm"
    for edit, message in (
        (lambda p: p[norm].pop("scale"), f"Missing: {norm}/scale"),
        (lambda p: p[norm].update(more=p[norm]["scale"]), f"model: {norm}/more"),
        (
            lambda p: p[place].update(w=p[place]["w"].T.copy()),
            rf"{place}/w: \(5, 16\), expected \(16, 5\)",
        ),
    ):
        parameters, state = _parameters("fourier", **SMALL)
        edit(parameters)
        _write(path, parameters, state)
        with pytest.raises(ValueError, match=message):
            load_deepmind(path, **{"modality.shape": (12, 12, 3)})


@pytest.mark.one_backend
def test_missing_file_is_named(tmp_path):
    for path in (None, tmp_path, tmp_path / "missing.pystate"):
        with pytest.raises(FileNotFoundError, match="`path` must be a file that DeepM"):
            load_deepmind(path)
