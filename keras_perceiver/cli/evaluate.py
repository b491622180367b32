"""Evaluates a trained model: metrics, confusion matrix, calibration, classes."""

from pathlib import Path

from keras_perceiver import _locks
from keras_perceiver._checks import check_choice
from keras_perceiver._files import check_writable
from keras_perceiver.cli import arguments, console, recipe_of

_DESCRIPTION = """Evaluates a trained model: metrics, confusion matrix, calibration.

  keras-perceiver evaluate runs/digits/1
  keras-perceiver evaluate runs/digits/1/model.keras --split validation

Prints a table of the classes, and writes the table, the metrics and plots to a folder.
The data are a split of the recipe's data, or any folder of labeled files.
"""
_SPLITS = ("test", "validation", "train")
_BATCH_SIZE = 32  # with --folder


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("evaluate", _DESCRIPTION)
    parser.add_argument("model", help="path of a .keras file, or folder of a run")
    parser.add_argument("--recipe", help=recipe_of.HELP_OF_RUN)
    parser.add_argument("--data", metavar="DIR", help="folder of the recipe's data")
    parser.add_argument(
        "--split", default="test", help=f"{', '.join(_SPLITS)}; default: test"
    )
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="instead of a split: any folder with files at FOLDER/CLASS/FILE, for models "
        "with a preprocessor",
    )
    parser.add_argument(
        "--batch-size", type=int, help="default: the recipe's, or 32 with --folder"
    )
    parser.add_argument(
        "--output", type=Path, help="default: the folder evaluation next to the model"
    )
    return parser


def check(options):
    """Raises an error for invalid options, as far as they can be checked without Keras."""
    arguments.check_backend()
    check_choice("--split", options.split, _SPLITS)
    arguments.check_numbers(options, "batch_size")
    options.model = arguments.model_file(options.model)
    if options.recipe is not None:
        recipe_of.check(options.recipe)
    elif options.folder is None:
        recipe_of.check_run(options.model.parent, options.data)
    arguments.check_folder("--data", options.data)
    arguments.check_folder("--folder", options.folder)
    arguments.check_installed("matplotlib", "Matplotlib", "matplotlib")


def run(options):
    """Evaluates the model."""
    console.import_keras()
    from keras_perceiver.cli import models

    model = models.load(options.model, is_task=True)
    models.metrics(options.model, model)  # warns if they belong to other weights
    with console.waiting("reading the data"):
        batches = _batches(options, model)
    output = options.output or options.model.parent / "evaluation"
    check_writable("--output", output)
    with _locks.locked(output / _locks.NAME, f"The folder {str(output)!r}"):
        _evaluate(model, batches, output)


def _evaluate(model, batches, output):
    from keras_perceiver.training.evaluate import evaluate, table, write_report

    report = evaluate(model, console.Batches(batches, "evaluating"))
    print(table(report))
    for name, value in report.metrics().items():
        print(f"{name}: {value:.4f}", flush=True)
    write_report(report, output)
    print(f"written: {output}")


def _batches(options, model):
    from keras_perceiver.training.evaluate import check_class_names

    if options.folder:
        return _labeled_folder(options, model)
    recipe = recipe_of.of_run(options.model.parent, options.recipe)
    batch_size = options.batch_size or recipe.step_size
    splits = recipe.splits(batch_size, data_folder=options.data)
    if splits.class_names:
        check_class_names(model, splits.class_names)
    return getattr(splits, options.split)


def _labeled_folder(options, model):
    """Returns the dataset of a folder with the classes of the model."""
    from keras_perceiver.data import read_folder
    from keras_perceiver.modalities.preprocessors.base import preprocessors_by_name

    if model.preprocessor is None:
        raise ValueError(
            "A folder of files needs a model with a preprocessor. Received: "
            f"--folder {options.folder}, preprocessor=None. Choose a split."
        )
    if getattr(model, "class_names", None) is None:
        raise ValueError(
            "The model must have class names. Received: a model without "
            "`class_names`. Create it with `class_names=`, as recipes do."
        )
    preprocessors = preprocessors_by_name(model.preprocessor, model.modalities)
    folder = read_folder(
        options.folder,
        model.preprocessor,
        options.batch_size or _BATCH_SIZE,
        class_names=list(model.class_names),
        shuffle=False,
        # Models that were trained with missing modalities need a mask for each.
        allow_missing=any(
            model.modalities[name].use_mask and not preprocessor.use_mask
            for name, preprocessor in preprocessors.items()
        ),
    )
    return folder.dataset
