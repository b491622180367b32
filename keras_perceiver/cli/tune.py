"""Searches hyperparameters for a recipe, and trains the best model."""

import contextlib
import dataclasses
import os
import sys
import threading
import time
from pathlib import Path

from keras_perceiver._checks import check_choice
from keras_perceiver._files import next_number
from keras_perceiver._overrides import parse_overrides
from keras_perceiver.cli import arguments, console, recipe_of
from keras_perceiver.serving.versions import check_serving

ALGORITHMS = ("hyperband", "bayesian", "random", "grid")
_DESCRIPTION = """Searches hyperparameters for a recipe, and trains the best model.

  keras-perceiver tune digits --minutes 20
  keras-perceiver tune digits --trials 40 --algorithm bayesian --max-gflops 0.01 \\
      --set latent_dim='[32, 64]' --set num_blocks=2 --set learning_rate='(1e-3, 1e-2)'

The space has half, once and twice the sizes of the recipe's model, which the search starts
with. --set replaces parts of it. The search writes trials.csv, front.png (scores against
FLOPs), parallel.png and importance.png to its folder. Then it trains the best model on
training and validation data, tests it once, and saves and exports it to the subfolder best.

Workers on other machines: KerasTuner's KERASTUNER_TUNER_ID (`chief` or another name),
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, and the same options everywhere.
"""
_RECIPE = ("data", "task", "model", "optimizer", "schedule", "preprocessor")
_NUMBERS = (
    "trials",
    "minutes",
    "total_epochs",
    "epochs",
    "max_parameters",
    "max_gflops",
    "max_activation_gib",
    "devices",
    "workers",
)


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("tune", _DESCRIPTION)
    recipe_of.add_arguments(parser)
    parser.add_argument(
        "--algorithm",
        default="hyperband",
        help="hyperband (default), bayesian, random or grid",
    )
    parser.add_argument("--trials", type=int, help="maximum number of trials")
    parser.add_argument(
        "--minutes", type=float, help="time after which no trial starts"
    )
    parser.add_argument(
        "--total-epochs", type=int, help="maximum number of epochs in all trials"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=30,
        help="epochs per trial, the maximum for Hyperband; default: 30",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="part of the space: a list of values, a tuple of two ends, or one value; or "
        "a setting of the recipe for all trials, such as model.use_remat=true",
    )
    parser.add_argument("--max-parameters", type=int, help="limit per model")
    parser.add_argument("--max-gflops", type=float, help="limit per example")
    parser.add_argument(
        "--max-activation-gib", type=float, help="memory limit of a training step"
    )
    parser.add_argument(
        "--precision",
        default="float32",
        help="float32 (default), mixed_bfloat16 or mixed_float16",
    )
    parser.add_argument(
        "--distribution",
        default="auto",
        help="devices of every trial, see `train`; default: auto",
    )
    parser.add_argument("--devices", type=int, help="number of devices; default: all")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--workers", type=int, default=1, help="parallel processes; default: 1"
    )
    parser.add_argument(
        "--folder", help="default: the next free number in searches/RECIPE"
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the search in --folder"
    )
    parser.add_argument(
        "--best-epochs",
        type=int,
        help="epochs for the best model, 0 to skip it; default: the recipe's",
    )
    parser.add_argument(
        "--export-folder",
        help="folder of the numbered exports; default: best/export in the search folder",
    )
    # The parent process of workers that this program starts.
    parser.add_argument("--chief", type=int, help=arguments.SUPPRESS)
    return parser


def check(options):
    """Raises an error for invalid options, as far as they can be checked without Keras."""
    if options.chief is not None:
        _end_with(options.chief)
    recipe_of.check_arguments(options)
    arguments.check_backend()
    check_choice("--algorithm", options.algorithm, ALGORITHMS)
    check_choice("--precision", options.precision, arguments.PRECISIONS)
    arguments.check_numbers(options, *_NUMBERS)
    if options.best_epochs is not None and options.best_epochs < 0:
        raise ValueError(
            f"--best-epochs must be 0 or more. Received: {options.best_epochs}. Set it "
            "to 0 to skip the training."
        )
    if not (options.trials or options.minutes or options.total_epochs):
        raise ValueError(
            "A search must have a limit. Received: none. Set --minutes, --trials or "
            "--total-epochs."
        )
    options.set = parse_overrides(options.set)
    if options.folder or not recipe_of.is_file(options.recipe):
        _check_folder(_folder(options, options.recipe), options)
    if options.best_epochs != 0:
        check_serving()
    arguments.check_installed("matplotlib", "Matplotlib", "matplotlib")
    arguments.check_installed("sklearn", "scikit-learn", "scikit-learn")
    options.sizes = recipe_of.sizes(options)


def run(options):
    """Runs the search, and trains the best model."""
    console.import_keras()
    from keras_perceiver import tuning
    from keras_perceiver.tuning.search import as_chief, is_worker

    recipe = recipe_of.get(options.recipe)
    # Settings of the recipe apply to all trials. Other names are those of the space.
    fixed = {
        path: value
        for path, value in options.set.items()
        if path.split(".")[0] in _RECIPE and "." in path
    }
    recipe = recipe.replace({**options.sizes, **fixed})
    space = {path: x for path, x in options.set.items() if path not in fixed}
    recipe.folder_argument(options.data)  # checks it
    budget = tuning.Budget(options.trials, options.total_epochs, options.minutes)
    folder = _folder(options, recipe.name)
    _check_folder(folder, options)
    folder.mkdir(parents=True, exist_ok=True)
    with console.waiting("reading the data"):
        hyper_model = _hyper_model(recipe, space, options)

    def data(batch_size, seed):
        return recipe.splits(batch_size, seed, options.data)

    def tune(report=console.say, **more):
        tuner = tuning.make_tuner(
            hyper_model,
            folder / "search",
            budget,
            options.algorithm,
            options.epochs,
            options.seed,
            report=report,
        )
        return tuning.search(tuner, data, options.epochs, **more)

    if is_worker():
        tune()
        return
    print(_start_line(recipe, options, folder), flush=True)
    workers = {}
    if options.workers > 1:
        command = [sys.executable, "-m", "keras_perceiver", "tune", *options.arguments]
        command += ["--folder", str(folder), "--resume", "--chief", str(os.getpid())]
        workers = {"num_workers": options.workers, "command": command}
    chief = as_chief() if workers else contextlib.nullcontext()
    with chief, console.waiting("searching") as line:
        rows = tune(line.print, **workers)
    tuning.write_trials(rows, folder / "trials.csv")
    first = min(row["trial"] for row in rows)
    for path in tuning.plot_trials(rows, folder, first):
        print(f"drawn: {path}")
    best = rows[0]
    print(
        f"best: trial {best['trial']}, {hyper_model.objective.name} {best['score']:.4f}"
    )
    if _best_epochs(recipe, options) > 0:
        _train_best(best, recipe, hyper_model, data, folder, options)


def _start_line(recipe, options, folder):
    """Returns a line with the algorithm, the limits, and the training that follows."""
    limits = []
    if options.trials:
        limits.append(f"{options.trials} trials")
    if options.total_epochs:
        limits.append(f"{options.total_epochs} epochs of all trials")
    if options.minutes:
        end = time.localtime(time.time() + 60 * options.minutes)
        limits.append(f"{time.strftime('%H:%M', end)}, when the last trial starts")
    import keras

    text = (
        f"{recipe.name} on {keras.backend.backend()}: {options.algorithm}, trials of up "
        f"to {options.epochs} epochs, until {' or '.join(limits)}"
    )
    epochs = _best_epochs(recipe, options)
    if epochs:
        text += f"; then the best model is trained for {epochs} epochs (--best-epochs)"
    return f"{text} -> {folder}"


def _best_epochs(recipe, options):
    return recipe.epochs if options.best_epochs is None else options.best_epochs


def _train_best(best, recipe, hyper_model, data, folder, options):
    """Trains the best model on training and validation data, and tests it once."""
    from keras_perceiver.cli.progress import run_stages
    from keras_perceiver.training import Run

    def all_data(batch_size, seed):
        return data(batch_size, seed).merge_validation(batch_size)

    epochs = _best_epochs(recipe, options)
    if best["seconds"]:
        seconds = best["seconds"] / best["epochs"] * epochs
        console.say(f"training the best model: about {console.duration(seconds)}")
    values = {name: best[name] for name in hyper_model.space}
    best_recipe = dataclasses.replace(
        hyper_model.recipe(values, recipe, epochs), data=all_data
    )
    run = Run(
        best_recipe.at_precision(options.precision),
        folder / "best",
        options.export_folder,
        seed=options.seed,
        resume=options.resume,
        distribution=hyper_model.distribution,
    )
    run_stages(run)
    print(f"saved: {run.result['model']}")
    print(f"exported: {run.result['export']}")
    target = Path("exports") / recipe.name
    words = ("export", run.result["model"], "--to", target)
    print(f"next: {arguments.command_line(*words)}")


def _hyper_model(recipe, space, options):
    """Returns a hypermodel around the recipe's model, with its optimizer."""
    from keras_perceiver import Distribution, PerceiverHyperModel

    distribution = Distribution(options.distribution, options.devices)
    splits = recipe.splits(1, options.seed, options.data)
    model = recipe.build_task(recipe.model(), splits)
    modalities = model.encoder.byte_array.modalities.values()
    num_inputs = None
    if None in [modality.num_inputs for modality in modalities]:
        # For inputs of any length, that of one example, to count FLOPs.
        inputs, _ = next(splits.test.as_numpy_iterator())
        num_inputs = model.encoder.byte_array(inputs)[0].shape[1]
    optimizer = recipe.optimizer().get_config()
    sizes = {max(recipe.batch_size // 2, 1), recipe.batch_size, recipe.batch_size * 2}
    limits = {
        "max_parameters": options.max_parameters,
        "max_flops": options.max_gflops and options.max_gflops * 1e9,
        "max_activation_bytes": options.max_activation_gib
        and options.max_activation_gib * 2**30,
    }
    return PerceiverHyperModel.around(
        model,
        space={"batch_size": sorted(sizes), **space},
        defaults={
            "learning_rate": optimizer["learning_rate"],
            "weight_decay": optimizer.get("weight_decay") or 1e-3,
            "label_smoothing": recipe.label_smoothing,
            "batch_size": recipe.batch_size,
            "optimizer": "lamb" if "Lamb" in str(optimizer.get("name")) else "adamw",
        },
        num_inputs=num_inputs,
        precision=options.precision,
        distribution=distribution,
        seed=options.seed,
        **limits,
    )


def _folder(options, name):
    """Returns the folder of the search."""
    if options.folder is not None:
        return Path(options.folder)
    searches = Path("searches") / name
    return searches / str(next_number(searches) - bool(options.resume))


def _check_folder(folder, options):
    """Raises an error unless a search can be started or resumed in a folder."""
    if options.resume and not folder.is_dir():
        raise FileNotFoundError(
            f"There must be a search to resume. Received: {str(folder)!r}, which is "
            "missing. Remove --resume, or pass the folder with --folder."
        )
    if not options.resume and (folder / "search").exists():
        raise FileExistsError(
            f"A search is never overwritten. Received: {str(folder)!r}, which has one. "
            "Resume it (--resume), or choose another folder."
        )


def _end_with(chief):
    """Exits this process when its parent, the chief, has exited."""

    def watch():
        while os.getppid() == chief:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
