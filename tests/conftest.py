"""Set up before any test module: devices, compilers, seeds, which tests run.

Only the backend under test is imported: `keras` imports torch before a test imports
TensorFlow for its data, since the other order crashes.
"""

import functools
import gc
import os
from pathlib import Path

# Several virtual devices, so that nothing passes only because there is one. The slow tier
# compiles as users do. The fast one leaves out optimizations of XLA and torch.compile,
# which take minutes for programs that run for milliseconds.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2"
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    * (os.environ.get("TEST_COMPILERS") != "real"),
)

# The tests compile few programs, each of them many times.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".pytest_cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import keras
import pytest

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )

if keras.backend.backend() == "torch" and os.environ.get("TEST_COMPILERS") != "real":
    import torch

    torch.compile = functools.partial(torch.compile, backend="aot_eager")


def pytest_collection_modifyitems(config, items):
    """Marks what is fast on one backend only, and leaves out what no backend affects.

    The latter runs once, among TensorFlow's tests.
    """
    backend = keras.backend.backend()
    for item in items:
        marker = item.get_closest_marker("fast_on")
        if marker is not None and backend not in marker.args:
            item.add_marker(pytest.mark.slow)
    if backend == "tensorflow":
        return
    left_out = [item for item in items if item.get_closest_marker("one_backend")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _fresh_state():
    """Every test starts from the same seed and leaves no global policy behind."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=False)
    # An iterator of TensorFlow that is garbage for minutes is waited for as long. What is
    # left is not looked at again: else each collection, and Keras makes one for each
    # weight that it quantizes, walks through all that hundreds of tests have built.
    gc.collect()
    gc.freeze()
