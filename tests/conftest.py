"""Set up before any test module: order of imports, devices, seeds."""

# torch before TensorFlow: the other order crashes when both are in one process.
import torch  # noqa: I001

import functools
import os

# Several virtual devices, so that nothing passes only because there is one.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

# XLA takes minutes to optimize what runs for milliseconds.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import keras
import pytest

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )

if keras.backend.backend() == "torch":
    # What torch makes of a traced step takes its compiler minutes, and is its business.
    torch.compile = functools.partial(torch.compile, backend="aot_eager")


def pytest_collection_modifyitems(config, items):
    """Runs what no backend has a part in once, among TensorFlow's tests."""
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
