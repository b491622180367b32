"""The state of one user of the page: inputs, what is hidden, and the answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import numpy as np

from keras_perceiver.explorer.answers import Answer, Explorer
from keras_perceiver.explorer.messages import message_of
from keras_perceiver.explorer.pictures import Picture, elements_under, example_picture


class Visit:
    """What one user has given, and the answers for it.

    Args:
        explorer: `Explorer`, which users share.

    Attributes:
        examples: Dict from names of modalities to raw inputs.
        pictures: Dict from names of modalities to the `Picture` of their raw inputs.
        hidden: Dict from names of modalities to boolean arrays of hidden elements, or
            `True`.
        answer: `Answer` with the hidden elements masked, or `None`.
        whole_answer: `Answer` for the whole example, or `None`. It is `answer` if nothing
            is hidden.
        errors: Dict from names of modalities to error messages.
        notes: Dict from names of modalities to how their files were converted.
        counts: Dict from names of modalities to the `count` of the last message.
    """

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._serials: dict = {}
        self.examples: dict[str, np.ndarray] = {}
        self.pictures: dict[str, Picture] = {}
        self.hidden: dict[str, np.ndarray | bool] = {}
        self.answer: Answer | None = None
        self.whole_answer: Answer | None = None
        self.errors: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.counts: dict[str, object] = {}

    def update(self, messages: Mapping[str, str | None]) -> None:
        """Computes the answers again.

        Args:
            messages: Mapping from names of modalities to messages of the page: JSON
                objects with `serial`, the number of the input; `input` with `kind`
                (`"file"`, `"drawing"`, `"text"` or `"none"`), `name` and `content` if it
                is new; `brush`, a PNG image or `None`; `hidden`, a boolean; and `count`,
                the number of the message. Images and files are in base64.
        """
        is_new = False
        for name, source in self._explorer.sources.items():
            if not messages.get(name):
                continue
            try:
                message = _object(messages[name])
                self.counts[name] = message.get("count")
                is_new |= self._read(name, source, message)
                self._hide(name, source, message)
            except (ValueError, ImportError) as error:
                self._remove(name)
                self.errors[name] = message_of(error, "Give another input.")
                is_new = True
        if not self.examples:
            self.answer = self.whole_answer = None
            return
        if is_new or self.whole_answer is None:
            self.whole_answer = self._explorer.answer(self.examples)
        self.answer = self.whole_answer
        if self.is_partial:
            self.answer = self._explorer.answer(self.examples, self.hidden)

    @property
    def is_partial(self) -> bool:
        """Boolean, whether something is hidden."""
        return any(np.any(x) for x in self.hidden.values())

    def _read(self, name, source, message):
        """Reads the input of a message, and returns whether it is a new one."""
        serial, given = message.get("serial"), message.get("input")
        if serial == self._serials.get(name):
            return False
        if given is None and not serial:  # there has been none
            return False
        if given is None:
            raise ValueError(
                "A change needs its input. Received: a change of an input that is not "
                "kept any more. Give it again."
            )
        self._remove(name)
        self._serials[name] = serial
        given = _object(given)
        kind, content = _text(given, "kind"), _text(given, "content")
        if kind == "none":
            return True
        if kind == "text":
            example = source.text(content)
        elif kind == "drawing":
            example = source.drawing(_decoded(content))
        else:
            name_and_content = _text(given, "name"), _decoded(content)
            example, self.notes[name] = source.file(*name_and_content)
        self.examples[name] = example
        with self._explorer.lock:
            self.pictures[name] = example_picture(source.modality, example)
        return True

    def _hide(self, name, source, message):
        self.hidden.pop(name, None)
        if name not in self.examples:
            return
        if message.get("hidden") is True:
            self.hidden[name] = True
        elif message.get("brush"):
            brush = _decoded(_text(message, "brush"))
            with self._explorer.lock:
                self.hidden[name] = elements_under(
                    source.modality, self.pictures[name], self.examples[name], brush
                )

    def _remove(self, name):
        for values in (
            *(self.examples, self.pictures, self.hidden),
            *(self.errors, self.notes),
        ):
            values.pop(name, None)


def _object(value):
    """Returns a JSON object, which may be in a string."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            "A message of the page must be a JSON object. Received: "
            f"{str(value)[:40]!r}. Load the page again."
        )
    return found


def _text(message, key):
    value = message.get(key, "")
    if not isinstance(value, str):
        raise ValueError(
            f"`{key}` of a message must be a string. Received: type "
            f"{type(value).__name__}. Load the page again."
        )
    return value


def _decoded(content):
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise ValueError(
            f"Files and images must be in base64. Received: other content ({error}). "
            "Load the page again."
        ) from error
