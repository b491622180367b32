"""Memory according to the compiler's analysis."""

import json
import os
import subprocess
import sys

import keras
import pytest

# TensorFlow and PyTorch have no such analysis.
if keras.backend.backend() == "jax":

    @pytest.fixture(scope="module")
    def memory():
        """Returns the bytes that `tests/layers/peak_memory.py` finds."""
        result = subprocess.run(
            [sys.executable, "-m", "tests.layers.peak_memory"],
            env={**os.environ, "XLA_FLAGS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not result.returncode, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    @pytest.mark.slow
    def test_chunked_attention_needs_no_memory_per_input(memory):
        half, whole = memory["attention"]["chunked"]
        assert whole < 1.05 * half
        assert whole < memory["scores"]
        half, whole = memory["attention"]["plain"]
        assert whole > 1.9 * half
        assert whole > 2 * memory["scores"]

    @pytest.mark.slow
    def test_rematerialization_keeps_the_input_of_each_self_attend(memory):
        def per_layer(name):
            few, many = memory["transformer"][name]
            return (many - few) / 4

        assert per_layer("remat") < 1.5 * memory["latents"]
        assert per_layer("kept") > 10 * memory["latents"]

    @pytest.mark.slow
    def test_custom_rematerialization_is_needed(memory):
        # If this fails with a new XLA, `recompute` can be replaced by `keras.remat`.
        found = memory["recompute"]
        assert found["ours"] < 0.2 * found["none"]
        assert found["keras"] > 0.8 * found["none"]
