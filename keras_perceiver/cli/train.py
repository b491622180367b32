"""Trains, tests, saves and exports the model of a recipe."""

import contextlib
import tempfile
from pathlib import Path

from keras_perceiver import _runs
from keras_perceiver._files import new_numbered_folder
from keras_perceiver._overrides import parse_overrides
from keras_perceiver.cli import arguments, console, recipe_of
from keras_perceiver.serving.versions import check_serving

_DESCRIPTION = """Trains, tests, saves and exports the model of a recipe.

  keras-perceiver train digits --set epochs=10
  keras-perceiver train digits --set model.use_remat=true \\
      --set model.modality.num_bands=32 --set optimizer.learning_rate=1e-3
  keras-perceiver train --images photos
  keras-perceiver train my_recipe.py

The run folder contains the model, its metrics, learning curves and an export. Use the
command `export` to export to the folder of a server.
"""
_NUMBERS = ("save_every", "keep", "devices", "model_devices", "virtual_devices")


def parser():
    """Returns the parser of the options."""
    hint = "Use --set for settings of the recipe, such as --set epochs=3."
    parser = arguments.Parser("train", _DESCRIPTION, hint)
    recipe_of.add_arguments(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a setting of the recipe by its dotted name; may be repeated",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the settings of the recipe, and exit"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="test the recipe: three steps on mock data in temporary folders",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--precision",
        help="dtype policy of the whole model: float32, mixed_bfloat16 or mixed_float16; "
        "default: the recipe's",
    )
    parser.add_argument(
        "--run-folder",
        metavar="DIR",
        help="default: the next free number in runs/RECIPE",
    )
    parser.add_argument(
        "--save-every",
        type=int,
        default=500,
        metavar="STEPS",
        help="training steps between two checkpoints; default: 500",
    )
    parser.add_argument(
        "--keep", type=int, default=2, help="number of checkpoints to keep; default: 2"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume the run in --run-folder, with the --set and --precision that it "
        "was started with; default: the latest in runs/RECIPE that has checkpoints. A run "
        "that is complete is left unchanged, and the command succeeds",
    )
    parser.add_argument(
        "--export-folder",
        metavar="DIR",
        help="folder of the numbered exports; default: the folder export of the run",
    )
    _add_devices(parser)
    return parser


def _add_devices(parser):
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
        help="number of devices of all processes together; default: all",
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
        help="for tests: split the CPU into this number of devices",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="with several processes on JAX, the address of process 0, or auto",
    )
    parser.add_argument(
        "--num-processes", type=int, metavar="N", help="number of processes"
    )
    parser.add_argument(
        "--process-index", type=int, metavar="N", help="index of this process, from 0"
    )


def check(options):
    """Raises an error for invalid options, as far as they can be checked without Keras."""
    recipe_of.check_arguments(options)
    arguments.check_backend()
    arguments.check_numbers(options, *_NUMBERS)
    options.set = parse_overrides(options.set)
    if options.precision is not None:
        arguments.check_precision(options.precision)
    options.resumed = _resumed(options, recipe_of.name(options.recipe))
    if not options.list:
        check_serving()  # fails before the training, not after it
    options.sizes = {} if options.resume else recipe_of.sizes(options)


def run(options):
    """Trains the model."""
    if options.resumed is not None and _was_finished(options.resumed, options):
        return
    console.import_keras(options.virtual_devices)
    from keras_perceiver import Distribution, distribution
    from keras_perceiver.training import saved_overrides

    recipe = recipe_of.get(options.recipe)
    recipe = recipe.replace({**options.sizes, **options.set})
    if options.precision is not None:
        recipe = recipe.at_precision(options.precision)
    if options.list:
        for path, value in recipe.paths().items():
            print(f"{path}={value}")
        return
    distribution.initialize(
        options.address, options.num_processes, options.process_index
    )
    devices = Distribution(options.distribution, options.devices, options.model_devices)
    if devices.num_processes > 1 and not (options.run_folder or options.smoke):
        raise ValueError(
            "Several processes need the same run folder. Received: no --run-folder. Pass a "
            "folder that all of them can access."
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = temporary if options.smoke else options.run_folder
        folder = folder or _resumed(options, recipe.name)
        folder = Path(folder or new_numbered_folder(Path("runs") / recipe.name))
        if _was_finished(folder, options):
            return
        with contextlib.ExitStack() as lock:
            if devices.process_index == 0 and folder.is_dir():
                lock.enter_context(_runs.locked_run(folder))
            if options.resume and not recipe.overrides:
                recipe = recipe.replace(saved_overrides(folder / _runs.CHECKPOINTS))
            _train(recipe, folder, devices, options)


def _train(recipe, folder, devices, options):
    from keras_perceiver.cli.progress import run_stages
    from keras_perceiver.training import Run, TrainingInterruptedError

    run = Run(
        recipe,
        run_folder=folder,
        export_folder=None if options.smoke else options.export_folder,
        seed=options.seed,
        data_folder=options.data,
        save_every=options.save_every,
        keep=options.keep,
        resume=options.resume,
        smoke=options.smoke,
        distribution=devices,
    )
    try:
        run_stages(run)
    except TrainingInterruptedError as error:
        console.say(f"interrupted: {error}")
        if run.is_writer and not options.smoke:
            console.say(f"resume with: {_resume(folder, options)}")
        raise SystemExit(128 + error.signal) from error  # as a shell reports a signal
    except OSError:  # such as a full disk
        if run.is_writer and _runs.checkpoint_paths(folder / _runs.CHECKPOINTS):
            console.say(f"resume with: {_resume(folder, options)}")
        raise
    if options.smoke:
        print(f"passed: {options.recipe}")
    elif "model" in run.result:  # process 0 has it
        print(f"saved: {run.result['model']}")
        print(f"exported: {run.result['export']}")
        print(f"next: {_next(folder, options)}")


def _next(folder, options):
    data = ["--data", options.data] if options.data else []
    recipe = ["--recipe", options.recipe] if recipe_of.is_file(options.recipe) else []
    return arguments.command_line("evaluate", folder, *recipe, *data)


def _resume(folder, options):
    words = [word for word in options.arguments if word != "--resume"]
    if "--run-folder" not in " ".join(words):
        words += ["--run-folder", folder]
    return arguments.command_line("train", *words, "--resume")


def _resumed(options, name):
    """Returns the folder of the run to resume, or `None` if it is not known.

    Args:
        options: Result of the parser.
        name: String, the name of the recipe, or `None` if it is not known yet.
    """
    if not options.resume or options.smoke or options.list:
        return None
    if options.run_folder is not None:
        return Path(options.run_folder)
    return _latest(Path("runs") / name) if name else None


def _was_finished(folder, options):
    """Returns whether a run to resume is complete, and prints that it is."""
    if options.smoke or not (options.resume and _runs.is_finished(folder)):
        return False
    print(f"already complete: {folder}")
    print(f"saved: {folder / _runs.MODEL}")
    print(f"next: {_next(folder, options)}")
    return True


def _latest(runs):
    """Returns the folder of the latest run with checkpoints, or else a complete one."""
    folders = sorted(runs.glob("*"), key=lambda p: (len(p.name), p.name), reverse=True)
    found = [p for p in folders if _runs.checkpoint_paths(p / _runs.CHECKPOINTS)]
    found += [p for p in folders if _runs.is_finished(p)]
    if not found:
        raise FileNotFoundError(
            "There must be a run with checkpoints to resume. Received: "
            f"{str(runs)!r}, which has none. Remove --resume, or pass the run "
            "with --run-folder."
        )
    return found[0]
