"""Types that the annotations of several modules share.

The annotations are for readers and type checkers. Nothing evaluates them at run time, so
that modules need no imports for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from keras_perceiver.modalities import Preprocessor

PathLike: TypeAlias = "str | os.PathLike[str]"

# A tensor of the backend, a NumPy array, or a `keras.KerasTensor`.
Tensor: TypeAlias = Any

# Takes the inputs of a batch and its key, and returns the augmented inputs.
Augmentation: TypeAlias = Callable[[Any, Tensor], Any]

# One preprocessor, or one per modality.
Preprocessors: TypeAlias = "Preprocessor | dict[str, Preprocessor]"
