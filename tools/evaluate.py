"""Evaluates a trained model: metrics, confusion, calibration, class by class.

    KERAS_BACKEND=tensorflow python tools/evaluate.py runs/digits/1/model.keras

Prints a table of the classes and writes it, the metrics and plots to a folder. The data
are a split of the recipe's, or any folder of labeled files of its kind.
"""

import argparse
import sys
from pathlib import Path


def main(arguments=None):
    options = _parser().parse_args(arguments)
    # Only now, so that --help does not wait for it.
    from keras_perceiver.training.evaluate import table, write_report

    try:
        report = _evaluate(options)
        output = options.output or options.model.parent / "evaluation"
        write_report(report, output)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(table(report))
    for name, value in report.metrics().items():
        print(f"{name}: {value:.4f}")
    print(f"written: {output}")


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", type=Path, help="a model.keras that tools/train.py made"
    )
    parser.add_argument(
        "--recipe",
        help="name of a recipe; default: that of the run, with what was set for it",
    )
    parser.add_argument("--data", metavar="DIR", help="folder of the recipe's data")
    parser.add_argument(
        "--split", default="test", choices=("test", "validation", "train")
    )
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="in place of a split: any folder of FOLDER/CLASS/FILE with classes of the "
        "model, for models with a preprocessor",
    )
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument(
        "--output", type=Path, help="default: the folder evaluation beside the model"
    )
    return parser


def _evaluate(options):
    import keras

    from keras_perceiver import recipes
    from keras_perceiver.training.evaluate import check_class_names, evaluate

    if not options.model.is_file():
        raise FileNotFoundError(
            f"`model` must be a file. Received: {str(options.model)!r}, which is none. "
            "Name a model.keras."
        )
    recipe = (
        recipes.get(options.recipe)
        if options.recipe
        else recipes.of_run(options.model.parent)
    )
    model = keras.saving.load_model(options.model, compile=False)
    batch_size = options.batch_size or recipe.step_size
    if options.folder:
        return evaluate(model, _labeled_folder(options, model, batch_size))
    splits = recipe.splits(batch_size, data_folder=options.data)
    check_class_names(model, splits.class_names)
    return evaluate(model, getattr(splits, options.split))


def _labeled_folder(options, model, batch_size):
    """Returns the files of a folder, labeled as those of the training."""
    from keras_perceiver.data import read_folder
    from keras_perceiver.modalities.preprocessors.base import preprocessors_by_name

    if model.preprocessor is None:
        raise ValueError(
            "A folder of files needs a model with a preprocessor. Received: "
            f"--folder {options.folder}, preprocessor=None. Choose a split."
        )
    if model.class_names is None:
        raise ValueError(
            "The names of the classes must be in the model. Received: a model without "
            "`class_names`. Create it with `class_names=`, as tools/train.py does."
        )
    preprocessors = preprocessors_by_name(model.preprocessor, model.modalities)
    folder = read_folder(
        options.folder,
        model.preprocessor,
        batch_size,
        class_names=list(model.class_names),
        shuffle=False,
        # Those that were trained with missing modalities take a mask of each.
        allow_missing=any(
            model.modalities[name].use_mask and not preprocessor.use_mask
            for name, preprocessor in preprocessors.items()
        ),
    )
    return folder.dataset


if __name__ == "__main__":
    main()
