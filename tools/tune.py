"""Searches good settings for the data of a recipe, and trains the best model.

    KERAS_BACKEND=jax python tools/tune.py digits --minutes 20
    python tools/tune.py digits --trials 40 --algorithm bayesian --max-gflops 0.01 \
        --set latent_dim='[32, 64]' --set num_blocks=2 --set learning_rate='(1e-3, 1e-2)'

The space has half, once and twice the sizes of the recipe's model, with which the search
begins; --set replaces parts of it. In the folder of the search are then `trials.csv`,
`front.png` (scores against FLOPs), `parallel.png` and `importance.png`, and in `best` the
model of the best trial: trained again on training and validation data, tested once, saved
and exported.

Workers on other machines: KerasTuner's KERASTUNER_TUNER_ID (`chief` or another name),
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, and the same options everywhere.
"""

import argparse
import dataclasses
import os
import sys
import threading
import time
from pathlib import Path

from common import check_backend

_RECIPE = ("data", "task", "model", "optimizer", "schedule", "files")


def parser():
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="name of a recipe, such as digits")
    parser.add_argument(
        "--algorithm",
        default="hyperband",
        help="hyperband (default), bayesian, random or grid",
    )
    parser.add_argument("--trials", type=int, help="end after so many trials")
    parser.add_argument("--minutes", type=float, help="begin no trial after so many")
    parser.add_argument(
        "--total-epochs", type=int, help="end after so many epochs of all trials"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=30,
        help="of a trial; of Hyperband the most; default: 30",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="part of the space: a list of values, a tuple of two ends, or one value; or "
        "a setting of the recipe for all trials, such as model.use_remat=true",
    )
    parser.add_argument("--max-parameters", type=int, help="limit of a model")
    parser.add_argument("--max-gflops", type=float, help="limit of an example")
    parser.add_argument(
        "--max-activation-gib", type=float, help="limit of a training step's memory"
    )
    parser.add_argument("--data", metavar="DIR", help="folder of the data")
    parser.add_argument(
        "--precision",
        default="float32",
        help="float32 (default), mixed_bfloat16 or mixed_float16",
    )
    parser.add_argument(
        "--distribution",
        default="auto",
        help="devices of every trial, as in tools/train.py; default: auto",
    )
    parser.add_argument("--devices", type=int, help="their number; default: all")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes side by side; default: 1"
    )
    parser.add_argument(
        "--folder", help="of the search; default: the next number in searches/RECIPE"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the search in --folder"
    )
    parser.add_argument(
        "--best-epochs",
        type=int,
        help="of the best model's last training; default: the recipe's. 0: no training",
    )
    parser.add_argument(
        "--export-folder", help="of the numbered exports; default: exports/RECIPE"
    )
    # Of workers that this program starts: the process that they serve.
    parser.add_argument("--chief", type=int, help=argparse.SUPPRESS)
    return parser


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    if options.chief is not None:
        _end_with(options.chief)
    try:
        _tune(options, arguments)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def _tune(options, arguments):
    check_backend()
    # Importing Keras picks the backend, so it comes after the check.
    from keras_perceiver import recipes, tuning
    from keras_perceiver.config import parse_overrides
    from keras_perceiver.training import train
    from keras_perceiver.tuning.search import as_chief, is_worker

    recipe = recipes.get(options.recipe)
    space = parse_overrides(options.set)
    # Names of the recipe hold for all trials; the others are those of the space.
    fixed = {k: v for k, v in space.items() if k.split(".")[0] in _RECIPE and "." in k}
    recipe = recipe.replace(fixed)
    space = {name: value for name, value in space.items() if name not in fixed}
    recipe.folder_argument(options.data)  # checks it
    budget = tuning.Budget(options.trials, options.total_epochs, options.minutes)
    folder = _folder(options, is_worker())
    hyper_model = _hyper_model(recipe, space, options)

    def data(batch_size, seed):
        return recipe.splits(batch_size, seed, options.data)

    def tune(**more):
        tuner = tuning.make_tuner(
            hyper_model,
            folder / "search",
            budget,
            options.algorithm,
            options.epochs,
            options.seed,
            report=lambda line: print(line, flush=True),
        )
        return tuning.search(tuner, data, options.epochs, **more)

    if is_worker():
        tune()
        return
    if options.workers > 1:
        command = [sys.executable, os.path.abspath(__file__), *arguments]
        command += ["--folder", str(folder), "--resume", "--chief", str(os.getpid())]
        with as_chief():
            rows = tune(num_workers=options.workers, command=command)
    else:
        rows = tune()
    tuning.write_trials(rows, folder / "trials.csv")
    first = min(row["trial"] for row in rows)
    for path in tuning.plot_trials(rows, folder, first):
        print(f"drawn: {path}")
    best = rows[0]
    print(
        f"best: trial {best['trial']}, {hyper_model.objective.name} {best['score']:.4f}"
    )
    epochs = options.best_epochs
    epochs = recipe.epochs if epochs is None else epochs
    if epochs == 0:
        return

    def all_data(batch_size, seed):
        return data(batch_size, seed).training_on_validation(batch_size)

    values = {name: best[name] for name in hyper_model.space}
    best_recipe = dataclasses.replace(
        hyper_model.recipe(values, recipe, epochs), data=all_data
    )
    result = train(
        best_recipe.at_precision(options.precision),
        folder / "best",
        options.export_folder or Path("exports") / recipe.name,
        seed=options.seed,
        resume=options.resume,
        distribution=hyper_model.distribution,
    )
    score = f"test_{hyper_model.task.cls.score}"
    print(f"{score}: {result[score]:.4f}")
    print(f"saved: {result['model']}")
    print(f"exported: {result['export']}")


def _hyper_model(recipe, space, options):
    """Returns what is searched: around the recipe's model, with its optimizer."""
    from keras_perceiver import Distribution, PerceiverHyperModel

    distribution = Distribution(options.distribution, options.devices)
    splits = recipe.splits(1, options.seed, options.data)
    model = recipe.build_task(recipe.model(), splits)
    modalities = model.encoder.byte_array.modalities.values()
    num_inputs = None
    if None in [modality.num_inputs for modality in modalities]:
        # Of any length: that of one example, for the FLOPs.
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


def _folder(options, is_worker):
    """Returns the search's folder, made where it is new."""
    from keras_perceiver._files import next_number

    folder = options.folder
    if folder is None:
        searches = Path("searches") / options.recipe
        number = next_number(searches) - bool(options.resume)
        folder = searches / str(number)
    folder = Path(folder)
    if options.resume and not folder.is_dir():
        raise FileNotFoundError(
            f"There must be a search to resume. Received: {str(folder)!r}, which is "
            "missing. Leave --resume out, or name the folder with --folder."
        )
    if not options.resume and (folder / "search").exists():
        raise FileExistsError(
            f"A search is never overwritten. Received: {str(folder)!r}, which holds one. "
            "Go on with it (--resume), or choose another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _end_with(chief):
    """Ends this process when its parent, the chief, has gone."""

    def watch():
        while os.getppid() == chief:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
