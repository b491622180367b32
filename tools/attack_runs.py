"""Attacks on runs: kills and full disks."""

import concurrent.futures
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
EPOCHS = 60  # of a run that is killed
# A run that is killed and resumed until it ends.
_RUN = """
import sys
from tests.training import runs
recipe = runs.recipe_with_all_state().replace({"epochs": int(sys.argv[2])})
runs.finished(recipe, sys.argv[1], save_every=7, resume=True)
"""


def kills(folder, count, seed):
    """Kills runs at random moments, and resumes them until they end.

    A run is killed ten times. Its weights must be those of an uninterrupted run.
    """
    pairs = [(folder / str(i), min(10, count - i)) for i in range(0, count, 10)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        whole = pool.submit(_run_and_kill, folder / "whole", 0, seed)
        killed = [pool.submit(_run_and_kill, *p, seed + i) for i, p in enumerate(pairs)]
        errors = [
            f"run that ends with {e}" for f in [whole, *killed] if (e := f.result())
        ]
    if errors:
        return [(error, False) for error in errors]
    expected = _weights(folder / "whole")
    outcomes = []
    for path, num_kills in pairs:
        is_equal = all(map(is_close, _weights(path), expected))
        outcome = "weights of an uninterrupted run" if is_equal else "other weights"
        outcomes += num_kills * [(outcome, is_equal)]
    return outcomes


def _run_and_kill(folder, num_kills, seed):
    """Returns what the last process reports, or an empty string if it succeeds."""
    from keras_perceiver._runs import checkpoint_paths

    rng = random.Random(seed)
    words = [sys.executable, "-c", _RUN, str(folder), str(EPOCHS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for i in range(num_kills + 1):
        before = checkpoint_paths(folder / "checkpoints")[:1]
        with subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            if i == num_kills:
                _, errors = process.communicate()
                break
            # The first step follows imports and compilation.
            while process.poll() is None:
                if checkpoint_paths(folder / "checkpoints")[:1] != before:
                    time.sleep(rng.uniform(0, 0.15))
                    break
                time.sleep(0.001)
            process.kill()
            if process.wait() not in (0, -signal.SIGKILL):
                return process.stderr.read().decode().splitlines()[-1]
    return errors.decode().splitlines()[-1] if process.returncode else ""


def _weights(folder):
    import keras

    return keras.saving.load_model(folder / "model.keras").get_weights()


def disks(folder, count, seed):
    """Trains and exports while files cannot grow, and repeats it with enough space."""
    rng = random.Random(seed)
    whole = _stages(folder / "whole")
    size = (folder / "whole" / "model.keras").stat().st_size
    outcomes = []
    for i in range(count):
        path, limit = folder / str(i), rng.randrange(1, size // 2)
        if i % 3:
            stage, expected = rng.choice(["fit", "save"]), whole.model.get_weights()
            outcomes.append(_full_disk(path, stage, limit, expected))
        else:
            # The model's file has the state of the optimizer too, the export has not.
            outcomes.append(_full_disk_at_export(path, whole.model, limit // 4))
    return outcomes


def _stages(folder, resume=False, full=None, limit=None):
    """Returns a run after its stages, one of which has a limit of file sizes."""
    from keras_perceiver.training import Run
    from tests.training import runs

    recipe = runs.little_recipe(task=runs.EagerClassifier)
    run = Run(recipe, folder, save_every=3, resume=resume)
    for stage in ("prepare", "fit", "score", "save"):
        options = {"verbose": 0} if stage == "fit" else {}
        with runs.limited(limit) if stage == full else contextlib.nullcontext():
            getattr(run, stage)(**options)
    return run


def _full_disk(folder, stage, limit, expected):
    """Returns the outcome of a full disk at a stage of a run, which is then resumed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _stages(folder, full=stage, limit=limit)
        except OSError as error:
            text = str(error)
        else:
            return f"{stage}: no error", False
    if not _is_right(text, folder):
        return f"{stage}: {text}", False
    weights = _stages(folder, resume=True).model.get_weights()
    if not all(map(is_close, weights, expected)):
        return f"{stage}: other weights after resuming", False
    return "error with file and fix; weights of an uninterrupted run once resumed", True


def _is_right(text, folder):
    """Returns whether an error has a file and the fix, and leaves no unfinished files."""
    left = [path for path in folder.rglob("*") if "unfinished" in path.name]
    return str(folder) in text and "Make room" in text and "\n" not in text and not left


def _full_disk_at_export(folder, model, limit):
    from keras_perceiver.serving import export_for_serving, verify_version
    from tests.training import runs

    try:
        with runs.limited(limit):
            export_for_serving(model, folder, use_check=False)
    except OSError as error:
        text = str(error)
    else:
        return "export: no error", False
    if not _is_right(text, folder) or list(folder.glob("[0-9]*")):
        return f"export: {text}", False
    verify_version(export_for_serving(model, folder, use_check=False))
    return "error with folder and fix; nothing was published", True


def is_close(x, y):
    """Returns whether arrays are equal, on torch up to rounding."""
    import keras
    import numpy as np

    tolerance = 1e-6 if keras.backend.backend() == "torch" else 0
    return np.allclose(x, y, rtol=0, atol=tolerance)
