"""Where the raw inputs of a modality come from: files, drawings or typed text."""

from __future__ import annotations

import io
from pathlib import PurePath

import numpy as np

from keras_perceiver.explorer.channels import MODES, converted_image
from keras_perceiver.modalities import ImagePreprocessor, Modality, Preprocessor
from keras_perceiver.modalities.preprocessors.arrays import load_array
from keras_perceiver.modalities.preprocessors.base import error_reason
from keras_perceiver.modalities.preprocessors.file_rules import FileRule, FileRuleError
from keras_perceiver.modalities.preprocessors.pictures import read_image

_MAX_SIDE = 1024  # pixels of a drawing
_IS_SMALL = FileRule(
    f"Drawings must have at most {_MAX_SIDE} x {_MAX_SIDE} pixels.",
    "{} x {}",
    "Reduce the drawing",
)


class Source:
    """Reads the raw inputs of a modality from what a user gives.

    Files are read by the preprocessor of the model. Without one, they are read by that of
    the modality, or as `.npy` arrays if it has none. Arrays may be typed as well.

    Args:
        name: String, the name of the modality.
        modality: Modality layer.
        preprocessor: `Preprocessor` of the model, or `None`.

    Attributes:
        suffixes: Tuple of strings, the file extensions.
        canvas: Pair of integers, height and width of a drawing in pixels, or `None` if
            the modality has no drawings.
        takes_text: Boolean, whether raw inputs may be typed.
        note: String, what a user should know about the inputs.
    """

    def __init__(
        self, name: str, modality: Modality, preprocessor: Preprocessor | None = None
    ) -> None:
        self.name, self.modality = name, modality
        reader = modality.file_preprocessor() if preprocessor is None else preprocessor
        self.reader = reader
        self.suffixes = (".npy",) if reader is None else reader.suffixes
        self.takes_text = reader is None
        shape = () if reader is None else reader.shape
        is_drawn = ".png" in self.suffixes and len(shape) == 3 and shape[-1] in MODES
        self.canvas = shape[:2] if is_drawn else None
        self.note = self._note(preprocessor is None)

    def _note(self, has_no_preprocessor):
        if self.reader is None:
            sizes = [str(n or "any") for n in self.modality.input_shape]
            shape = f"shape ({', '.join(sizes)})"
            if len(sizes) == 1:
                shape = "any length" if sizes == ["any"] else f"length {sizes[0]}"
            return f"{self.modality.text_hint} Or drop a .npy file of {shape}."
        if not has_no_preprocessor:
            return ""
        values, kind = self.reader.value_range, type(self.reader).__name__
        scaled = (
            f" Values are scaled to {values[0]:g}..{values[1]:g}." if values else ""
        )
        return f"The model has no preprocessor. Files are read by {kind}.{scaled}"

    def file(self, file_name: str, content: bytes) -> tuple[np.ndarray, str]:
        """Returns the raw input in a file, and how it was converted.

        Args:
            file_name: String, of which only the extension is used.
            content: Bytes. An image with transparency, or in gray or color unlike those
                of the model, is converted.

        Returns:
            Pair of a NumPy array and a sentence for the user, `""` without a conversion.

        Raises:
            ValueError: if the file is invalid.
        """
        suffix = PurePath(file_name).suffix.lower()
        FileRule(
            f"A file of `{self.name}` must end with {', '.join(self.suffixes)}.",
            "{!r}",
            "Convert the file",
        ).check(suffix in self.suffixes, file_name)
        note = ""
        if isinstance(self.reader, ImagePreprocessor):
            is_small = len(content) <= self.reader.max_bytes
            pixels = self.reader.max_pixels if is_small else 0
            image, note = converted_image(content, self.reader.shape[-1], pixels)
            suffix = suffix if image is content else ".png"
            content = image
        return self._read(content, suffix), note

    def drawing(self, content: bytes) -> np.ndarray:
        """Returns the raw input of a drawing.

        Args:
            content: Bytes of a PNG image, which is converted to the channels of the
                model.

        Raises:
            ValueError: if the drawing is invalid.
        """
        from PIL import Image

        if self.canvas is None:
            raise ValueError(
                f"Only images can be drawn. Received: a drawing of `{self.name}`. Pass a "
                "file."
            )
        pixels = picture_pixels(content)
        mode = MODES[self.reader.shape[-1] or 1]
        file = io.BytesIO()
        Image.fromarray(
            pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
        ).convert(mode).save(file, "PNG")
        return self._read(file.getvalue(), ".png")

    def text(self, text: str) -> np.ndarray:
        """Returns the raw input that a user has typed.

        Args:
            text: String.

        Raises:
            ValueError: if the text is invalid.
        """
        if not self.takes_text:
            raise ValueError(
                f"Inputs `{self.name}` must be files that end with "
                f"{', '.join(self.suffixes)}. Received: a text. Pass a file."
            )
        return self.checked(self.modality.from_text(text))

    def _read(self, content, suffix):
        try:
            if self.reader is None:
                array = load_array(content).astype(self.modality.input_dtype)
            else:
                limit = self.reader.max_bytes
                FileRule(
                    f"A file must have at most `max_bytes={limit}` bytes.",
                    "{} bytes",
                    "Reduce it",
                ).check(len(content) <= limit, len(content))
                array = self.reader.read_content(content, suffix)
        except (FileRuleError, ImportError):
            raise
        except Exception as error:  # libraries raise various classes
            kind = "a NumPy array" if self.reader is None else self.reader.file_kind
            raise ValueError(
                f"A file must be {kind}. Received: invalid content "
                f"({error_reason(error)}). Repair it, or choose another one."
            ) from error
        return self.checked(array)

    def checked(self, array: np.ndarray) -> np.ndarray:
        """Returns a raw input, after a check by the modality of shape and values."""
        length = self.modality.input_shape[0]
        if self.modality.use_mask and length is not None and len(array) < length:
            self.modality.check_inputs((1, length, *array.shape[1:]))
        else:
            self.modality.check_inputs((1, *array.shape))
        self.modality.check_values(array)
        if not np.isfinite(array).all():
            raise ValueError(
                f"Inputs `{self.name}` must be finite numbers. Received: NaN or infinity. "
                "Correct them."
            )
        return array

    def batch(self, array: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns a raw input as a batch of one example, and its mask of raw positions.

        It is padded to the maximum length if there is one, so that few shapes occur.

        Args:
            array: NumPy array, or `None` for an example without this modality.
        """
        modality = self.modality
        shape = modality.input_shape
        if array is None:
            batch = np.zeros((1, *modality.example_shape), modality.input_dtype)
            return batch, np.zeros((1, *batch.shape[1 : 1 + self._mask_axes]), "bool")
        sizes = list(array.shape)
        if modality.use_mask:
            limit = modality.dynamic_lengths.get(0, (1, None))[1] or shape[0]
            sizes[0] = max(sizes[0], limit or 0)
        batch = np.zeros((1, *sizes), modality.input_dtype)
        batch[0, : len(array)] = array
        mask = np.zeros((1, *sizes[: self._mask_axes]), "bool")
        mask[0, : len(array)] = True
        return batch, mask

    @property
    def _mask_axes(self):
        return len(self.modality.mask_shape)


def picture_pixels(content: bytes) -> np.ndarray:
    """Returns the pixels of a drawing, `(height, width, channels)`.

    Args:
        content: Bytes of an image.

    Raises:
        ValueError: if it is invalid or too large.
    """

    def check_size(height, width):
        _IS_SMALL.check(max(height, width) <= _MAX_SIDE, height, width)

    try:
        return read_image(content, check_size)
    except FileRuleError:
        raise
    except Exception as error:  # Pillow raises various classes
        raise ValueError(
            "A drawing must be an image. Received: invalid content "
            f"({error_reason(error)}). Draw it again."
        ) from error
