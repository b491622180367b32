"""Run folders: names of their files, their lock, and whether a run is complete."""

import re
from pathlib import Path

from keras_perceiver import _locks

MODEL, METRICS, CHECKPOINTS = "model.keras", "metrics.json", "checkpoints"
_CHECKPOINT = re.compile(r"step-(\d+)\.checkpoint")


def locked_run(folder):
    """Returns a context in which only this process uses a run folder."""
    return _locks.locked(Path(folder) / _locks.NAME, f"The run folder {str(folder)!r}")


def checkpoint_name(step):
    """Returns the name of the checkpoint file of a step."""
    return f"step-{step:010d}.checkpoint"


def step_of(path):
    """Returns the step in the name of a checkpoint file, or `None` for other names."""
    match = _CHECKPOINT.fullmatch(Path(path).name)
    return int(match[1]) if match else None


def checkpoint_paths(folder):
    """Returns the paths of the checkpoints in a folder, the latest first."""
    files = [path for path in Path(folder).glob("step-*") if path.is_file()]
    steps = {path: step_of(path) for path in files}
    found = [path for path in files if steps[path] is not None]
    return sorted(found, key=steps.get, reverse=True)


def is_finished(run_folder):
    """Returns whether a run is complete: with a model and metrics, without checkpoints."""
    folder = Path(run_folder)
    is_saved = all((folder / name).is_file() for name in (MODEL, METRICS))
    return is_saved and not checkpoint_paths(folder / CHECKPOINTS)
