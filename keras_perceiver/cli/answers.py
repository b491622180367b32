"""Output of predictions, one line per example: a readable table, or JSON lines."""

import json

import numpy as np


class Table:
    """Prints predictions, one line per example.

    Args:
        names: Sequence of strings, the names of all examples.
        use_json: Boolean. `True`: a JSON object per line, with all outputs.
        labels: Sequence of strings, the classes of the probabilities, or `None` if only
            the most probable class is known.
        top: Integer, number of the most probable classes per line.
    """

    def __init__(self, names, use_json=False, labels=None, top=1):
        self._width = max(map(len, names), default=0)
        self._use_json, self._labels, self._top = use_json, labels, top

    def show(self, name, outputs):
        """Prints a line.

        Args:
            name: String, the name of the example.
            outputs: Dict of plain values, as `rows` yields them, or with `error` only.
        """
        if self._use_json:
            print(json.dumps({"example": name, **outputs}), flush=True)
        else:
            print(f"{name:{self._width}}  {self._text(outputs)}", flush=True)

    def _text(self, outputs):
        if "error" in outputs:
            return f"error: {outputs['error']}"
        probabilities = np.array(outputs.get("probabilities", ()))
        if probabilities.ndim != 1 or not probabilities.size:
            return ", ".join(f"{name} {_short(x)}" for name, x in outputs.items())
        if self._labels is None:
            return f"{outputs.get('classes', '')}  {_percent(probabilities.max())}"
        best = np.argsort(-probabilities, kind="stable")[: self._top]
        texts = [f"{self._labels[i]}  {_percent(probabilities[i])}" for i in best]
        return "  ".join(texts)


def rows(outputs, size):
    """Yields the outputs of each example as a dict of plain values.

    Args:
        outputs: Dict from names to arrays with a batch axis.
        size: Integer, number of examples.
    """
    for i in range(size):
        yield {name: _plain(outputs[name][i]) for name in sorted(outputs)}


def _plain(value):
    """Returns a NumPy array or scalar as JSON-serializable values."""
    if isinstance(value, bytes):
        return value.decode()
    value = np.asarray(value)
    return value.astype(str).tolist() if value.dtype.kind in "OSU" else value.tolist()


def _short(value):
    shape = np.shape(value)
    return f"of shape {shape}" if shape else str(value)


def _percent(probability):
    return f"{100 * probability:.1f} %"
