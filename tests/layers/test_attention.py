import itertools
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_perceiver import attend
from keras_perceiver.layers.attention import (
    KERNELS,
    Chunked,
    JaxFused,
    PerDevice,
    Plain,
    Problem,
    TorchFused,
    attention_scores,
    use_kernel,
    use_portable_kernels,
)
from keras_perceiver.layers.attention.table import choose
from tests import reference
from tests.gradients import gradients

BACKEND = keras.backend.backend()
# The backend's own kernels, as far as they run on a CPU.
OWN = {
    "jax": {"fused": JaxFused("xla")},
    "tensorflow": {},
    "torch": {
        "fused": TorchFused(),
        "padded": TorchFused(width_multiple=PerDevice(8, 8, 8)),
    },
}[BACKEND]
# Chunks of three inputs, and all inputs in one chunk.
SMALL = {"plain": Plain(), "chunked": Chunked(3), "one chunk": Chunked(7), **OWN}


@pytest.fixture(params=SMALL)
def kernel(request):
    """Runs a test with each kernel."""
    with use_kernel(SMALL[request.param]):
        yield request.param


def _arrays(rng, batch=2, num_queries=5, num_inputs=7, qk_dim=12, v_dim=8):
    shapes = [(num_queries, qk_dim), (num_inputs, qk_dim), (num_inputs, v_dim)]
    return [rng.normal(size=(batch, *shape)).astype("float32") for shape in shapes]


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


# Masked, scaled, causal, queries of batch 1.
OPTIONS = list(itertools.product(*[[False, True]] * 4))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_float64_reference(options):
    masked, scaled, is_causal, is_broadcast = options
    rng = np.random.default_rng(0)
    q, k, v = _arrays(rng)
    q = q[:1] if is_broadcast else q
    num_heads = 1 + sum(options) % 2  # each with each option
    arguments = {"num_heads": num_heads, "is_causal": is_causal, "scale": 0.3}
    mask = np.array([[1, 0, 0, 1, 1, 0, 1], [0] * 7], bool) if masked else None
    factor = [rng.uniform(0.5, 2, k.shape[:2]).astype("float32")] * scaled

    def run(q, k, v, factor=None):
        return attend(q, k, v, inputs_mask=mask, inputs_scale=factor, **arguments)

    expected = [x.astype("float64") for x in (q, k, v, *factor)]
    arguments |= {"mask": mask, "inputs_scale": expected[3] if scaled else None}
    expected_outputs = reference.attention(*expected[:3], **arguments)
    expected_gradients = reference.attention_gradients(*expected[:3], **arguments)
    del arguments["mask"], arguments["inputs_scale"]
    outputs, found = gradients(run, q, k, v, *factor)
    np.testing.assert_allclose(outputs, expected_outputs, atol=1e-5)
    for a, b in zip(found, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("num_inputs", [1, 3, 12])
@pytest.mark.parametrize("is_causal", [False, True])
def test_keys_that_are_values(num_inputs, is_causal):
    # With fewer inputs than queries, the first queries of a causal problem see nothing.
    q, k, _ = _arrays(np.random.default_rng(0), num_inputs=num_inputs)

    def run(q, k):
        return attend(q, k, k, num_heads=2, is_causal=is_causal)

    arguments = [x.astype("float64") for x in (q, k, k)], 2
    outputs, (d_q, d_k) = gradients(run, q, k)
    np.testing.assert_allclose(
        outputs,
        reference.attention(*arguments[0], 2, is_causal=is_causal),
        atol=1e-5,
    )
    expected = reference.attention_gradients(*arguments[0], 2, is_causal=is_causal)
    np.testing.assert_allclose(d_q, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(d_k, expected[1] + expected[2], rtol=1e-4, atol=1e-4)


# On other backends, `gradients` compiles chunks as well.
if BACKEND == "torch":

    def test_torch_compiles_what_is_around_attention(kernel):
        import torch

        arrays = _arrays(np.random.default_rng(0))

        def run(*tensors):
            return 2 * attend(*tensors, num_heads=2)

        expected, gradients_expected = gradients(run, *arrays)
        # A single graph, except for the loop over chunks, which is not compiled.
        compiled = torch.compile(run, fullgraph="chunk" not in kernel)
        outputs, found = gradients(compiled, *arrays)
        for a, b in zip(
            (outputs, *found), (expected, *gradients_expected), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("kernel")
def test_large_scores_do_not_overflow():
    q, k, v = _arrays(np.random.default_rng(0))
    expected = reference.attention(*(x.astype("float64") for x in (q * 1e3, k, v)))
    np.testing.assert_allclose(_numpy(attend(q * 1e3, k, v)), expected, atol=1e-4)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("is_causal", [False, True])
def test_masked_inputs_have_no_influence_even_as_nan(is_causal):
    q, k, v = _arrays(np.random.default_rng(0))
    mask = np.array([[True] * 3 + [False] * 4, [False] * 7])

    def run(q, k, v):
        return attend(q, k, v, inputs_mask=mask, is_causal=is_causal)

    expected, expected_gradients = gradients(run, q, k, v)
    np.testing.assert_array_equal(expected[1], 0)
    assert (expected[0] != 0).all()
    k[~mask], v[~mask] = np.nan, np.nan
    outputs, found = gradients(run, q, k, v)
    np.testing.assert_array_equal(outputs, expected)
    for a, b in zip(found, expected_gradients, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("dtype", "limit"), [("float16", 2e-3), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_half_precision(dtype, limit, is_causal):
    q, k, v = _arrays(np.random.default_rng(0))
    mask = np.arange(7) < np.array([[7], [4]])
    q, k, v = (keras.ops.cast(x, dtype) for x in (q, k, v))
    outputs = attend(q, k, v, num_heads=2, inputs_mask=mask, is_causal=is_causal)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    expected = reference.attention(
        *(_numpy(x).astype("float64") for x in (q, k, v)),
        num_heads=2,
        mask=mask,
        is_causal=is_causal,
    )
    np.testing.assert_allclose(_numpy(outputs), expected, atol=3 * limit)


@pytest.mark.parametrize("kernel", [None, "plain", "chunked", *OWN])
@pytest.mark.parametrize(("dtype", "limit"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_half_precision_accumulates_in_float32(kernel, dtype, limit):
    # 20,000 equal weights: their sum in half precision would stop at 2048 or 256.
    num_inputs = 20_000
    q = keras.ops.zeros((1, 2, 4), dtype)
    k = keras.ops.zeros((1, num_inputs, 4), dtype)
    v = np.random.default_rng(0).uniform(0, 2, (1, num_inputs, 3)).astype("float32")
    outputs = attend(q, k, keras.ops.cast(v, dtype), kernel=OWN.get(kernel, kernel))
    expected = np.broadcast_to(v.mean(1, keepdims=True), (1, 2, 3))
    np.testing.assert_allclose(_numpy(outputs), expected, rtol=limit)


@pytest.mark.usefixtures("kernel")
def test_empty_batch():
    q, k, v = _arrays(np.random.default_rng(0), batch=0)
    mask = np.zeros((0, 7), bool)
    assert tuple(attend(q, k, v, num_heads=2).shape) == (0, 5, 8)
    assert tuple(attend(q[:0], k, v, inputs_mask=mask).shape) == (0, 5, 8)


def test_scores_are_those_of_the_softmax():
    q, k, _ = _arrays(np.random.default_rng(0))
    scores = _numpy(attention_scores(q, k, num_heads=2))
    expected = np.stack(
        [q[..., :6] @ k[..., :6].mT, q[..., 6:] @ k[..., 6:].mT], 1
    ) / np.sqrt(6)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def _problem(**changes):
    values = {
        "backend": BACKEND,
        "device": "cpu",
        "dtype": "float32",
        "num_heads": 1,
        "num_queries": 512,
        "num_inputs": 50_176,
        "qk_head_dim": 261,
        "v_head_dim": 261,
    }
    return Problem(**(values | changes))


IMAGE = {"has_scale": True}
SELF = {"num_heads": 8, "num_inputs": 512, "qk_head_dim": 128, "v_head_dim": 128}
CLOUD = {"has_mask": True}
HALF_ON_GPU = {"device": "gpu", "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("backend", "changes", "name"),
    [
        ("jax", IMAGE, "chunked"),
        ("jax", {"num_inputs": 2048}, "plain"),
        ("jax", {"num_inputs": 2049}, "chunked"),
        ("jax", {"num_inputs": 4096, "device": "gpu"}, "plain"),
        ("jax", {"num_inputs": None}, "plain"),
        ("jax", SELF | HALF_ON_GPU, "jax_fused"),
        ("jax", SELF | HALF_ON_GPU | {"is_causal": True}, "jax_fused"),
        ("jax", SELF | HALF_ON_GPU | {"is_portable": True}, "plain"),
        ("jax", SELF | HALF_ON_GPU | {"num_inputs": 511}, "plain"),  # an odd length
        ("jax", IMAGE | HALF_ON_GPU, "chunked"),  # heads too wide for cuDNN
        ("tensorflow", IMAGE, "chunked"),
        ("tensorflow", {"num_inputs": None}, "chunked"),
        ("tensorflow", IMAGE | {"is_portable": True}, "chunked"),
        ("tensorflow", {"num_inputs": 2048, "num_heads": 2}, "chunked"),
        ("torch", IMAGE, "chunked"),
        ("torch", IMAGE | {"device": "gpu"}, "torch_fused"),
        ("torch", CLOUD, "torch_fused"),
        ("torch", IMAGE | {"num_inputs": 100}, "plain"),
        ("torch", SELF, "torch_fused"),
        ("torch", SELF | {"is_causal": True}, "torch_fused"),
        ("torch", {"is_causal": True}, "chunked"),
        ("torch", IMAGE | {"is_portable": True}, "plain"),
    ],
)
def test_the_table_chooses(backend, changes, name):
    if backend == BACKEND:
        assert choose(_problem(**changes)).name == name


def test_flash_attention_switch_of_keras():
    fused = {kernel.name for kernel in KERNELS if kernel.is_fused}
    problem = _problem(**(SELF | HALF_ON_GPU))
    assert (choose(problem).name in fused) == (BACKEND != "tensorflow")
    keras.config.disable_flash_attention()
    try:
        assert choose(problem).name not in fused
    finally:
        keras.config.enable_flash_attention()


class _Spy:
    """A user-defined kernel with `supports` and a call."""

    name, needs, is_fused = "spy", "a float32 problem", False

    def __init__(self):
        self.calls = []

    def supports(self, problem):
        self.problem = problem
        return problem.dtype == "float32"

    def __call__(self, query, key, value, **options):
        self.calls.append(options)
        return Plain()(query, key, value, **options)


def test_override_by_context_and_by_argument():
    spy = _Spy()
    q, k, v = _arrays(np.random.default_rng(0))
    expected = _numpy(attend(q, k, v))
    with use_kernel(spy):
        outputs = attend(q, k, v)
        assert len(spy.calls) == 1
        attend(q, k, v, kernel="plain")
        with use_kernel("chunked"):
            attend(q, k, v)
        with use_kernel(None):
            attend(q, k, v)
        assert len(spy.calls) == 1
        attend(q, k, v, num_heads=2, is_causal=True)
        assert spy.calls[1]["is_causal"]
        assert spy.problem.num_heads == 2
        assert not spy.problem.is_portable
        with use_portable_kernels():
            attend(q, k, v)
        assert spy.problem.is_portable
        # Like replicas of a `tf.distribute` strategy.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(attend, q, k, v).result()
    attend(q, k, v)
    assert len(spy.calls) == 4
    np.testing.assert_allclose(_numpy(outputs), expected, atol=1e-6)


def test_override_refuses_what_a_kernel_does_not_support():
    spy = _Spy()
    q, k, v = (keras.ops.cast(x, "bfloat16") for x in _arrays(np.random.default_rng(0)))
    message = r"must support.*needs a float32 problem.*dtype='bfloat16'.*kernel=None"
    with pytest.raises(ValueError, match=message), use_kernel(spy):
        attend(q, k, v)
    with pytest.raises(ValueError, match=r"at most `max_scores`"):
        attend(q, k, v, kernel=Plain(PerDevice(34, 34, 34)))
    attend(q, k, v, kernel=Plain(PerDevice(35, 35, 35)))
    with pytest.raises(ValueError, match=r"name must be one of.*plain.*'flash'"):
        attend(q, k, v, kernel="flash")
    other = "torch_fused" if BACKEND != "torch" else "jax_fused"
    with pytest.raises(
        ValueError, match=rf"{'PyTorch' if BACKEND != 'torch' else 'JAX'}"
    ):
        attend(q, k, v, kernel=other)


if BACKEND != "tensorflow":

    @pytest.mark.filterwarnings("ignore")  # of the exporters themselves
    @pytest.mark.parametrize("options", OPTIONS[::2], ids=str)
    def test_exports_with_dynamic_sizes(options, tmp_path):
        masked, scaled, is_causal, _ = options

        def run(q, k, v, mask, factor):
            outputs = attend(
                q,
                k,
                v,
                num_heads=2,
                inputs_mask=mask if masked else None,
                inputs_scale=factor if scaled else None,
                is_causal=is_causal,
            )
            # Exporters remove unused inputs.
            return outputs + 0.0 * (factor.sum() + mask.sum())

        rng = np.random.default_rng(0)

        def arguments(batch, num_queries, num_inputs):
            q, k, v = _arrays(rng, batch, num_queries, num_inputs)
            mask = rng.random(k.shape[:2]) > 0.3
            return q, k, v, mask, rng.random(k.shape[:2]).astype("float32")

        exported = _exported(run, arguments(2, 5, 7), tmp_path / "attend.onnx")
        for sizes in ((2, 5, 7), (1, 1, 1), (3, 7, 4), (1, 4, 4)):
            q, k, v, mask, factor = arguments(*sizes)
            expected = reference.attention(
                *(x.astype("float64") for x in (q, k, v)),
                num_heads=2,
                mask=mask if masked else None,
                inputs_scale=factor if scaled else None,
                is_causal=is_causal,
            )
            for function in exported:
                outputs = function(q, k, v, mask, factor)
                outputs = keras.ops.convert_to_numpy(outputs)
                np.testing.assert_allclose(outputs, expected, atol=1e-5)

    def _exported(function, arguments, path):
        """Yields `function`, exported with unknown sizes in every way of the backend."""
        axes = {"q": "bn", "k": "bm", "v": "bm", "mask": "bm", "factor": "bm"}
        if BACKEND == "jax":
            import jax

            scope = jax.export.SymbolicScope()
            specs = [
                jax.ShapeDtypeStruct(
                    jax.export.symbolic_shape(
                        ",".join([*names, *map(str, x.shape[2:])]), scope=scope
                    ),
                    x.dtype,
                )
                for x, names in zip(arguments, axes.values(), strict=True)
            ]
            return [jax.export.export(jax.jit(function))(*specs).call]
        import onnxruntime
        import torch

        class Module(torch.nn.Module):
            def forward(self, q, k, v, mask, factor):
                return function(q, k, v, mask, factor)

        tensors = tuple(map(keras.ops.convert_to_tensor, arguments))
        dims = {n: torch.export.Dim(n) for n in "bnm"}
        program = torch.export.export(
            Module(),
            tensors,
            dynamic_shapes={
                k: {i: dims[n] for i, n in enumerate(v)} for k, v in axes.items()
            },
        )
        torch.onnx.export(
            Module(),
            tensors,
            path,
            dynamo=False,
            input_names=list(axes),
            dynamic_axes={k: dict(enumerate(v)) for k, v in axes.items()},
        )
        session = onnxruntime.InferenceSession(path)
        return [
            lambda *x: program.module()(*map(keras.ops.convert_to_tensor, x)),
            lambda *x: session.run(None, dict(zip(axes, x, strict=True)))[0],
        ]


def test_unknown_number_of_inputs():
    class AttendToItself(keras.layers.Layer):
        def call(self, x):
            return attend(x, x, x, is_causal=True)

    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, AttendToItself()(inputs))
    for num_inputs in (1, 5, 1500):
        x = np.random.default_rng(0).normal(size=(1, num_inputs, 2)).astype("float32")
        expected = reference.attention(*[x.astype("float64")] * 3, is_causal=True)
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_rejects_unsuitable_arguments():
    q, k, v = _arrays(np.random.default_rng(0))
    with pytest.raises(
        ValueError, match=r"`v_dim` must be divisible.*v_dim=8.*multiple"
    ):
        attend(q, k, v, num_heads=3)
    with pytest.raises(ValueError, match="must have the same width.*Project"):
        attend(q, k[..., :-1], v)
    with pytest.raises(ValueError, match="same batch size and length.*one value"):
        attend(q, k, v[:, 1:])
    with pytest.raises(ValueError, match="that of `key`, or 1.*one set"):
        attend(q, *(np.concatenate([x, x]) for x in (k, v)))
    with pytest.raises(ValueError, match="`query` must have shape.*Reshape"):
        attend(q[0], k, v)
    with pytest.raises(ValueError, match="`num_heads` must be a positive integer"):
        attend(q, k, v, num_heads=0)
