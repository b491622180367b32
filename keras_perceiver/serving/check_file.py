"""Compares an ONNX or LiteRT file with recorded outputs: `check_file.py FILE FOLDER`.

It runs as a script in a separate process, so that it only has the file, as a runtime
has.
"""

import sys
from pathlib import Path

import numpy as np

# Batches of one, two and seven examples.
_BATCHES = (slice(0, 1), slice(1, 3), slice(3, 10))


def main(file, folder):
    folder = Path(folder)
    predict = {".onnx": _onnx, ".tflite": _litert}[Path(file).suffix](file)
    inputs = np.load(folder / "inputs.npz", allow_pickle=False)
    outputs = np.load(folder / "outputs.npz", allow_pickle=False)
    tolerance = float(np.load(folder / "settings.npz")["tolerance"])
    for key, expected in outputs.items():
        prefix = f"{key.split('/')[0]}/inputs/"  # of the signature
        for examples in _BATCHES:
            request = {
                name.removeprefix(prefix): inputs[name][examples]
                for name in inputs.files
                if name.startswith(prefix)
            }
            # Relative to the largest output, as in check_saved_model.py.
            scale = max(1.0, float(np.abs(expected[examples]).max()))
            np.testing.assert_allclose(
                predict(request),
                expected[examples],
                rtol=0,
                atol=tolerance * scale,
                err_msg="The file differs from model.predict at batch size "
                f"{len(expected[examples])}.",
            )


def _onnx(file):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda request: session.run(None, request)[0]


def _litert(file):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file)
    (signature,) = interpreter.get_signature_list()
    places = interpreter.get_signature_runner(signature)

    def predict(request):
        (answer,) = places(**request).values()
        return answer

    return predict


if __name__ == "__main__":
    main(*sys.argv[1:])
