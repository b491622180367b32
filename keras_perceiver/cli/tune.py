"""Searches hyperparameters for a recipe."""

import contextlib
import dataclasses
import os
import sys
import threading
import time
from pathlib import Path

from keras_perceiver import _locks
from keras_perceiver._checks import check_choice
from keras_perceiver._files import check_writable, new_numbered_folder, next_number
from keras_perceiver._overrides import parse_overrides
from keras_perceiver.cli import arguments, console, recipe_of
from keras_perceiver.serving.versions import check_serving

ALGORITHMS = ("hyperband", "bayesian", "random", "grid")
_DESCRIPTION = """Searches hyperparameters for a recipe.

  keras-perceiver tune digits --minutes 20
  keras-perceiver tune digits --trials 40 --algorithm bayesian --max-gflops 0.01 \\
      --set latent_dim='[32, 64]' --set num_blocks=2 --set learning_rate='(1e-3, 1e-2)'
  keras-perceiver tune digits --resume --folder searches/digits/1 --retrain

The space has half, once and twice the sizes of the recipe's model, which the search starts
with. --set replaces parts of it. The search writes trials.csv, front.png (scores against
FLOPs), parallel.png and importance.png to its folder. With --retrain, it then trains the
best model on training and validation data, tests it once, and saves and exports it to the
subfolder best.

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
    "retrain",
)
_LIMITS = ("--minutes", "--trials", "--total-epochs")


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
        "--minutes",
        type=float,
        help="maximum time; the running trial is then stopped after its epoch, and counts",
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
        "--retrain",
        nargs="?",
        type=int,
        const=True,
        metavar="EPOCHS",
        help="after the search, train the best model for this number of epochs; default: "
        "the recipe's. With --resume and no limit, no more trials are run",
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
    if not (_has_limit(options) or (options.resume and options.retrain)):
        raise ValueError(
            "A search must have a limit. Received: none. Set --minutes, --trials or "
            "--total-epochs, or --resume and --retrain to train the best model."
        )
    options.set = parse_overrides(options.set)
    if options.folder or not recipe_of.is_file(options.recipe):
        _check_folder(_folder(options, options.recipe), options)
    if options.retrain:
        check_serving()
    arguments.check_installed("matplotlib", "Matplotlib", "matplotlib")
    arguments.check_installed("sklearn", "scikit-learn", "scikit-learn")
    options.sizes = recipe_of.sizes(options)


def _has_limit(options):
    return bool(options.trials or options.minutes or options.total_epochs)


def run(options):
    """Runs the search, and trains the best model on request."""
    console.import_keras()
    from keras_perceiver.cli.recipe_search import RecipeSearch
    from keras_perceiver.tuning.search import is_worker

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
    folder = _folder(options, recipe.name)
    if is_worker():
        RecipeSearch(recipe, space, folder, options).run(console.say)
        return
    _check_folder(folder, options)
    if folder is None:
        folder = new_numbered_folder(Path("searches") / recipe.name)
    check_writable("--folder", folder)
    with _locks.locked(folder / _locks.NAME, f"The search folder {str(folder)!r}"):
        _check_folder(folder, options)
        _search_and_retrain(recipe, space, folder, options)


def _search_and_retrain(recipe, space, folder, options):
    from keras_perceiver import tuning
    from keras_perceiver.cli.recipe_search import RecipeSearch

    with console.waiting("reading the data"):
        search = RecipeSearch(recipe, space, folder, options)
    print(_start_line(recipe, options, folder), flush=True)
    rows = _rows(search, folder, options)
    completed = [row for row in rows if row["status"] == "COMPLETED"]
    if rows:
        tuning.write_trials(rows, folder / "trials.csv")
    if not completed:
        raise ValueError(
            f"A search must complete a trial. Received: {len(rows)} trials, none of which "
            f"is completed. See {folder / 'trials.csv'}, and search for longer."
        )
    for path in tuning.plot_trials(rows, folder, min(row["trial"] for row in rows)):
        print(f"drawn: {path}")
    best = rows[0]
    objective = search.hyper_model.objective.name
    print(f"best: trial {best['trial']}, {objective} {best['score']:.4f}")
    epochs = recipe.epochs if options.retrain in (None, True) else options.retrain
    seconds = epochs * best["seconds"] / best["epochs"] if best["seconds"] else None
    takes = "" if seconds is None else f", about {console.duration(seconds)}"
    text = f"train the best model for {epochs} epochs{takes}"
    if options.retrain:
        console.say(f"{text} ...")
        _retrain(best, epochs, search, options)
    else:
        print(f"next, to {text}: {_retrain_command(folder, options)}")


def _rows(search, folder, options):
    """Runs the trials within the limits, and returns the table of all trials."""
    from keras_perceiver import tuning
    from keras_perceiver.cli.progress import SearchProgress
    from keras_perceiver.tuning.search import as_chief

    if not _has_limit(options):
        return tuning.table(search.tuner().oracle)
    workers, chief = {}, contextlib.nullcontext()
    if options.workers > 1:
        command = [sys.executable, "-m", "keras_perceiver", "tune", *options.arguments]
        command += ["--folder", str(folder), "--resume", "--chief", str(os.getpid())]
        workers = {"num_workers": options.workers, "command": command}
        chief = as_chief()
    progress = SearchProgress(options.minutes)
    with chief, console.waiting("searching", more=progress.text) as line:
        return search.run(line.print, progress=progress.begin_epoch, **workers)


def _start_line(recipe, options, folder):
    """Returns a line with the algorithm and the limits."""
    limits = []
    if options.trials:
        limits.append(f"{options.trials} trials")
    if options.total_epochs:
        limits.append(f"{options.total_epochs} epochs of all trials")
    if options.minutes:
        end = time.localtime(time.time() + 60 * options.minutes)
        limits.append(time.strftime("%H:%M:%S", end))
    import keras

    text = f"{recipe.name} on {keras.backend.backend()}: "
    if not limits:
        return f"{text}no more trials -> {folder}"
    return (
        f"{text}{options.algorithm}, trials of up to {options.epochs} epochs, until "
        f"{' or '.join(limits)} -> {folder}"
    )


def _retrain_command(folder, options):
    """Returns the command that trains the best model of this search."""
    words, left = [], iter(options.arguments)
    for word in left:
        name, _, value = word.partition("=")
        if name in (*_LIMITS, "--folder"):
            if not value:
                next(left)
        elif word != "--resume":
            words.append(word)
    words += ["--resume", "--folder", folder, "--retrain"]
    return arguments.command_line("tune", *words)


def _retrain(best, epochs, search, options):
    """Trains the best model on training and validation data, and tests it once."""
    from keras_perceiver.cli.progress import run_stages
    from keras_perceiver.training import Run

    hyper_model, folder = search.hyper_model, search.folder

    def all_data(batch_size, seed):
        return search.data(batch_size, seed).merge_validation(batch_size)

    values = {name: best[name] for name in hyper_model.space}
    recipe = dataclasses.replace(
        hyper_model.recipe(values, search.recipe, epochs), data=all_data
    )
    run = Run(
        recipe.at_precision(options.precision),
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


def _folder(options, name):
    """Returns the folder of the search, or `None` for the next free number."""
    if options.folder is not None:
        return Path(options.folder)
    searches = Path("searches") / name
    return searches / str(next_number(searches) - 1) if options.resume else None


def _check_folder(folder, options):
    """Raises an error unless a search can be started or resumed in a folder."""
    if folder is None:
        return
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
