"""Compares a SavedModel with recorded outputs: `check_saved_model.py FOLDER NPZ`.

Run as a file, in a process of its own, it sees what a server sees: the SavedModel alone,
without the Python code that made it.
"""

import sys

import numpy as np
import tensorflow as tf


def main(folder, examples):
    signature = tf.saved_model.load(folder).signatures["serving_default"]
    arrays = np.load(examples, allow_pickle=False)
    for size in sorted({name.split("/")[0] for name in arrays} - {"tolerance"}):
        prefix = f"{size}/inputs/"
        inputs = {
            name.removeprefix(prefix): tf.constant(arrays[name])
            for name in arrays
            if name.startswith(prefix)
        }
        (outputs,) = signature(**inputs).values()
        np.testing.assert_allclose(
            outputs.numpy(),
            arrays[f"{size}/outputs"],
            rtol=float(arrays["tolerance"]),
            atol=float(arrays["tolerance"]),
            err_msg=f"The SavedModel differs from model.predict at batch size {size}.",
        )
    if "keras_perceiver" in sys.modules:
        raise RuntimeError("The check must see the SavedModel alone.")


if __name__ == "__main__":
    main(*sys.argv[1:])
