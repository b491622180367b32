"""Evaluates a trained model: scores, confusion, calibration, class by class.

    KERAS_BACKEND=tensorflow python tools/evaluate.py runs/digits/1/model.keras \\
        --recipe digits

Prints a table of the classes and writes it, the scores and plots to a folder. The data
are a split of the recipe's, or any folder of labelled files of its kind.
"""

import argparse
import json
import sys
from pathlib import Path


def main(arguments=None):
    options = _parser().parse_args(arguments)
    try:
        evaluation = _evaluate(options)
        output = options.output or options.model.parent / "evaluation"
        evaluation.write(output)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(evaluation.table())
    for name, value in evaluation.metrics().items():
        print(f"{name}: {value:.4f}")
    print(f"written: {output}")


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", type=Path, help="a model.keras that tools/train.py made"
    )
    parser.add_argument("--recipe", required=True, help="the one it was trained with")
    parser.add_argument("--data", metavar="DIR", help="folder of the recipe's data")
    parser.add_argument(
        "--split", default="test", choices=("test", "validation", "train")
    )
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="in place of a split: any folder of FOLDER/CLASS/FILE with classes of the "
        "model, for recipes that say how to read files",
    )
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument(
        "--output", type=Path, help="default: the folder evaluation beside the model"
    )
    return parser


def _evaluate(options):
    import keras

    from keras_perceiver import recipes
    from keras_perceiver.training import evaluate

    recipe = recipes.get(options.recipe)
    if not options.model.is_file():
        raise FileNotFoundError(
            f"`model` must be a file. Received: {str(options.model)!r}, which is none. "
            "Name a model.keras."
        )
    model = keras.saving.load_model(options.model, compile=False)
    batch_size = options.batch_size or recipe.batch_size // recipe.accumulation_steps
    dataset, class_names = (
        _labelled_folder(recipe, options, batch_size)
        if options.folder
        else _split(recipe, options, batch_size)
    )
    return evaluate(model, dataset, class_names, recipe.is_multi_label)


def _split(recipe, options, batch_size):
    """Returns a split of the recipe's data and its class names."""
    splits = recipe.data(batch_size, 0, *recipe.folders(options.data))
    return getattr(splits, options.split), splits.class_names


def _labelled_folder(recipe, options, batch_size):
    """Returns the files of a folder, labelled as the model was trained."""
    from keras_perceiver.data import read_folder

    if recipe.files is None:
        raise ValueError(
            f"The recipe {recipe.name!r} reads no labelled folders. Received: "
            f"--folder {options.folder}. Choose a split."
        )
    path = options.model.parent / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(
            "The names of the classes are in the metrics.json beside the model. "
            f"Received: no {str(path)!r}. Leave the model in the folder of its run."
        )
    class_names = json.loads(path.read_text())["class_names"]
    files = read_folder(
        options.folder,
        recipe.files(),
        batch_size,
        class_names=class_names,
        shuffle=False,
    )
    return files.dataset, class_names


if __name__ == "__main__":
    main()
