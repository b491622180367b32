"""Checkpoints on disk, written atomically and verified when they are loaded."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_perceiver import _runs
from keras_perceiver._checks import check_positive
from keras_perceiver._files import UNFINISHED, replace_file, writing

_INFO = "info"
_DIGEST_LENGTH = hashlib.sha256().digest_size * 2  # hexadecimal digits


class Checkpoint(NamedTuple):
    """The content of a checkpoint.

    Attributes:
        step: Integer, number of training steps.
        arrays: List of NumPy arrays.
        info: JSON-serializable dict.
    """

    step: int
    arrays: list
    info: dict


class Checkpoints:
    """A folder with the latest checkpoints.

    A checkpoint is one file: the SHA-256 digest of the rest, then a NumPy archive of
    arrays, without pickles. It is written atomically, so that a crash, a kill or a full
    disk leaves earlier checkpoints intact.

    Args:
        folder: Path, which is created with the first checkpoint.
        keep: Integer, number of checkpoints to keep.
        is_read_only: Boolean, whether `save` does nothing, since only one of several
            processes that train together writes.
    """

    def __init__(self, folder, keep=2, is_read_only=False):
        check_positive(keep=keep)
        self.folder = Path(folder)
        self.keep = keep
        self.is_read_only = is_read_only

    def paths(self):
        """Returns the paths of the checkpoints, the latest first."""
        return _runs.checkpoint_paths(self.folder)

    def newest_step(self):
        """Returns the step of the latest checkpoint, intact or not, or 0."""
        paths = self.paths()
        return _runs.step_of(paths[0]) if paths else 0

    def position(self):
        """Returns text that says where a run would be resumed."""
        step = self.newest_step()
        return f"from step {step}" if step else "from the beginning"

    def save(self, step, arrays, info):
        """Writes a checkpoint and deletes old ones.

        Args:
            step: Integer, number of training steps.
            arrays: List of NumPy arrays.
            info: JSON-serializable dict.

        Raises:
            WriteError: if the disk is full or fails; earlier checkpoints are intact.
        """
        if self.is_read_only:
            return
        path = self.folder / _runs.checkpoint_name(step)
        info = {**info, "step": step}
        with writing(f"The folder {str(self.folder)!r}"):
            self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(
            path,
            lambda unfinished: _write(unfinished, arrays, info),
            f"Make room and resume: the run continues {self.position()}.",
        )
        for old in self.paths()[self.keep :]:
            old.unlink()
        for left in self.folder.glob(f"{UNFINISHED}*"):  # by a run that was killed
            left.unlink()

    def load(self):
        """Returns the latest intact `Checkpoint`, or `None` if there is none.

        Warns about damaged ones, and tries the previous one.

        Raises:
            ValueError: if there are checkpoints, but all are damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                return _read(path)
            except _DamagedError as error:
                warnings.warn(
                    f"The checkpoint {path} is damaged ({error}) and is not used. "
                    "Trying the one before.",
                    stacklevel=2,
                )
        if paths:
            raise ValueError(
                "At least one checkpoint must be intact. Received: "
                f"{[str(path) for path in paths]}, which are all damaged. Delete them to "
                "start from the beginning."
            )
        return None


def check_unused(run_folder, checkpoints, resume):
    """Raises `FileExistsError` where a run would overwrite another one.

    Args:
        run_folder: Path.
        checkpoints: `Checkpoints` of the run.
        resume: Boolean, whether the run continues from them.
    """
    found = checkpoints.paths()
    if found and not resume:
        raise FileExistsError(
            "The checkpoints of another run are never overwritten. Received: "
            f"run_folder={str(run_folder)!r}, which contains {found[0].name}. Resume that "
            "run (--resume), or choose another folder."
        )
    if not found and (run_folder / _runs.MODEL).exists():
        raise FileExistsError(
            "A trained model is never overwritten. Received: "
            f"run_folder={str(run_folder)!r}, which contains a model.keras. "
            "Choose another folder."
        )


class _DamagedError(Exception):
    pass


def _write(path, arrays, info):
    text = np.frombuffer(json.dumps(info).encode(), "uint8")
    named = {f"{i:06d}": array for i, array in enumerate(arrays)}
    with path.open("w+b") as file:
        file.write(b"0" * _DIGEST_LENGTH)
        np.savez(file, **{_INFO: text}, **named)
        file.seek(_DIGEST_LENGTH)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write(digest.encode())


def _read(path):
    with path.open("rb") as file:
        expected = file.read(_DIGEST_LENGTH)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest.encode() != expected:
            raise _DamagedError("its content does not have the digest it begins with")
        file.seek(_DIGEST_LENGTH)
        with np.load(file, allow_pickle=False) as archive:
            info = json.loads(archive[_INFO].tobytes())
            names = sorted(name for name in archive.files if name != _INFO)
            arrays = [archive[name] for name in names]
    step = info.pop("step")
    if step != _runs.step_of(path):
        raise _DamagedError(f"its name has another step than its content, {step}")
    return Checkpoint(step, arrays, info)
