"""Configuration of all tests: devices, compilers, seeds, selection of tests.

Only the backend under test is imported: `keras` imports torch before a test imports
TensorFlow for its data, since the other order crashes.
"""

import functools
import gc
import os
from pathlib import Path

# Several virtual devices, so that no test passes only because there is one. Slow tests
# compile as users do. Fast tests skip optimizations of XLA and torch.compile, which
# take minutes for programs that run for milliseconds.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2"
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    * (os.environ.get("TEST_COMPILERS") != "real"),
)

# The tests compile a few programs many times.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".pytest_cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# GPUs and TPUs round the factors of products of float32 numbers otherwise.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

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
    """Marks tests that are fast on one backend only, and skips backend-independent ones.

    The latter run once, with the tests on TensorFlow.
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
    """Sets the seed before each test, and resets the global policy after it."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=False)
    # TensorFlow may wait for minutes for iterators that were not collected. Remaining
    # objects are frozen, since otherwise each collection (Keras runs one per quantized
    # weight) would traverse everything that hundreds of tests have built.
    gc.collect()
    gc.freeze()
