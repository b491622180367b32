"""Trains, evaluates, saves and exports the model of a recipe.

    KERAS_BACKEND=tensorflow python tools/train.py digits --set epochs=10
    python tools/train.py digits --set model.use_remat=true \\
        --set model.modality.num_bands=32 --set optimizer.learning_rate=1e-3
    python tools/train.py digits --list

The backend is Keras' own switch, the environment variable KERAS_BACKEND.
"""

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from common import check_backend


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="name of a recipe, such as digits")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a setting of the recipe, by its dotted name; may be repeated",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the settings of the recipe, and end"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder of the data, for recipes that read one: see the recipe's card",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="try the recipe: three steps on mock data, in temporary folders",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--precision",
        help="dtype policy of the whole model: float32, mixed_bfloat16 or mixed_float16; "
        "default: the recipe's",
    )
    parser.add_argument(
        "--run-folder", help="default: the next free number in runs/RECIPE"
    )
    parser.add_argument(
        "--save-every",
        type=int,
        default=500,
        metavar="STEPS",
        help="training steps between two checkpoints; default: 500",
    )
    parser.add_argument(
        "--keep", type=int, default=2, help="checkpoints that are kept; default: 2"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --run-folder, with the --set and --precision that it "
        "was started with; default: the newest in runs/RECIPE that has checkpoints",
    )
    parser.add_argument(
        "--export-folder",
        help="folder of the numbered exports; default: exports/RECIPE",
    )
    parser.add_argument(
        "--distribution",
        default="auto",
        help="none, mirrored or tpu (TensorFlow), data_parallel or model_parallel (JAX); "
        "default: auto, a TPU, several GPUs, or none",
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="devices of all processes together; default: all there are",
    )
    parser.add_argument(
        "--model-devices",
        type=int,
        metavar="N",
        help="with model_parallel, devices that share a model; default: all",
    )
    parser.add_argument(
        "--virtual-devices",
        type=int,
        metavar="N",
        help="try it: make so many devices of the CPU",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="with several processes on JAX, where process 0 is; or auto",
    )
    parser.add_argument(
        "--num-processes", type=int, metavar="N", help="processes that train together"
    )
    parser.add_argument(
        "--process-index", type=int, metavar="N", help="which of them this is, from 0"
    )
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            result = _train(options, Path(temporary))
    except (ValueError, OSError, ImportError) as error:
        _leave(f"error: {error}")
    except SystemExit as error:  # interrupted
        _leave(error.code)
    except Exception:
        # Whatever it is: at a normal end this process would wait for the others.
        traceback.print_exc()
        _leave(1)
    if result is None:
        return
    for name, value in result.items():
        if (
            name.startswith("test_")
            and isinstance(value, float)
            and name != "test_loss"
        ):
            for missing, score in result.get(f"{name}_without", {}).items():
                print(f"{name} without {missing}: {score:.4f}")
            print(f"{name}: {value:.4f}")
    if options.smoke:
        print(f"passed: {options.recipe}")
        return
    if "model" not in result:
        return  # process 0 has it
    print(f"saved: {result['model']}")
    print(f"exported: {result['export']}")


def _train(options, temporary):
    check_backend()
    # Importing Keras picks the backend, so it comes after the check.
    from keras_perceiver import Distribution, distribution, recipes
    from keras_perceiver.training import (
        CHECKPOINTS,
        TrainingInterruptedError,
        saved_overrides,
        train,
    )

    recipe = _overridden(recipes.get(options.recipe), options)
    if options.list:
        for path, value in recipe.paths().items():
            print(f"{path}={value}")
        return None
    if options.virtual_devices is not None:
        distribution.virtual_devices(options.virtual_devices)
    distribution.initialize(
        options.address, options.num_processes, options.process_index
    )
    devices = Distribution(options.distribution, options.devices, options.model_devices)
    if devices.num_processes > 1 and not (options.run_folder or options.smoke):
        raise ValueError(
            "Several processes need one run folder. Received: --run-folder without a "
            "value. Name a folder that all of them see."
        )
    run_folder = options.run_folder or _run_folder(recipe, options)
    export_folder = options.export_folder or Path("exports") / recipe.name
    if options.smoke:
        run_folder, export_folder = temporary / "run", temporary / "exports"
    if options.resume and not recipe.overrides:
        recipe = recipe.replace(saved_overrides(Path(run_folder) / CHECKPOINTS))
    try:
        return train(
            recipe,
            run_folder=run_folder,
            export_folder=export_folder,
            seed=options.seed,
            data_folder=options.data,
            save_every=options.save_every,
            keep=options.keep,
            resume=options.resume,
            smoke=options.smoke,
            distribution=devices,
        )
    except TrainingInterruptedError as error:
        print(f"interrupted: {error}", file=sys.stderr)
        sys.exit(128 + error.signal)  # as a shell reports a signal


def _overridden(recipe, options):
    """Returns the recipe with what `--set` and `--precision` change."""
    from keras_perceiver.config import parse_overrides

    recipe = recipe.replace(parse_overrides(options.set))
    if options.precision is not None:
        recipe = recipe.at_precision(options.precision)
    return recipe


def _leave(status):
    """Ends the program, and others that train together with it."""
    # It may not have come to that import.
    distribution = sys.modules.get("keras_perceiver.distribution")
    (distribution.leave if distribution else sys.exit)(status)


def _run_folder(recipe, options):
    """Creates the folder with the next free number, even if two runs start at once.

    To resume, returns the one with the highest number that has checkpoints instead.
    """
    if options.smoke:
        return None
    from keras_perceiver._files import next_number
    from keras_perceiver.training import CHECKPOINTS

    runs = Path("runs") / recipe.name
    if options.resume:
        found = [p.parent for p in runs.glob(f"*/{CHECKPOINTS}") if any(p.iterdir())]
        if not found:
            raise FileNotFoundError(
                "There must be a run with checkpoints to resume. Received: "
                f"{str(runs)!r}, which has none. Leave --resume out, or name the run "
                "with --run-folder."
            )
        return max(found, key=lambda folder: (len(folder.name), folder.name))
    runs.mkdir(parents=True, exist_ok=True)
    while True:
        folder = runs / str(next_number(runs))
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


if __name__ == "__main__":
    main()
