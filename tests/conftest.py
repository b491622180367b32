"""Set up before any test module: devices, compilers, seeds, which tests run.

Only the backend under test is imported: `keras` imports torch before a test imports
TensorFlow for its data, since the other order crashes.
"""

import functools
import os

# Several virtual devices, so that nothing passes only because there is one.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

# The slow tier compiles as users do. The fast one leaves out optimizations of XLA and
# torch.compile, which take minutes for programs that run for milliseconds.
os.environ.setdefault(
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "0" if os.environ.get("TEST_COMPILERS") == "real" else "1",
)

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
    """Runs tests that no backend affects once, among TensorFlow's tests."""
    if keras.backend.backend() == "tensorflow":
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
    # Collecting garbage after each of hundreds of tests takes minutes.
    keras.utils.clear_session(free_memory=False)
