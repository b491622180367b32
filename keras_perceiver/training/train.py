"""A whole run in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_perceiver._files import read_json
from keras_perceiver._runs import METRICS, MODEL, is_finished
from keras_perceiver.serving import check_serving
from keras_perceiver.serving.card import version_of_weights
from keras_perceiver.training.run import EXPORT, Run

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike
    from keras_perceiver.training.recipe import Recipe


def train(
    recipe: Recipe,
    run_folder: PathLike,
    export_folder: PathLike | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Trains, tests, saves and exports the model of a recipe.

    Calls the stages of a `Run` in order. With `resume`, a complete run is left unchanged.

    Args:
        recipe: `Recipe`.
        run_folder: Path, see `Run`.
        export_folder: Path, see `Run`.
        **options: Other arguments of `Run`.

    Returns:
        Dict of the entries of `metrics.json`, with the paths `model` and `export` (in
        process 0, if there are several).

    Raises:
        NonFiniteLossError: if the loss becomes NaN or infinite.
        TrainingInterruptedError: after SIGTERM or SIGINT, once the state is saved.
        ValueError: as `Run` and `Run.prepare`, which also raise errors of files.
    """
    if options.get("resume") and is_finished(run_folder):
        return _finished_result(run_folder, export_folder)
    check_serving()  # fails before the training instead of after it
    run = Run(recipe, run_folder, export_folder, **options)
    run.prepare()
    run.fit()
    run.score()
    run.save()
    run.export()
    return run.result


def _finished_result(run_folder, export_folder=None):
    """Returns the `result` of a complete run from its folder."""
    run_folder = Path(run_folder)
    metrics = read_json(run_folder / METRICS)
    result = {**metrics, "model": run_folder / MODEL}
    version = version_of_weights(
        export_folder or run_folder / EXPORT, metrics.get("weights_sha256")
    )
    return result if version is None else {**result, "export": version}
