"""Exports a `.keras` file from any backend for TF Serving, ONNX Runtime or LiteRT."""

import os
from pathlib import Path

from keras_perceiver._checks import check_choice
from keras_perceiver.cli import arguments, console, recipe_of
from keras_perceiver.serving import versions

FORMATS = ("savedmodel", *versions.FORMATS)
_DESCRIPTION = """Exports a .keras file for TF Serving, ONNX Runtime or LiteRT.

  keras-perceiver export runs/digits/1 --to exports/digits
  keras-perceiver export runs/digits/1/model.keras --to digits.onnx --format onnx

The metrics in the model card are those of the metrics.json next to the file, if it belongs
to the same weights. The signature `encoded` uses the preprocessor of the model. The export
runs under TensorFlow, whatever backend the model was trained on.
"""


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("export", _DESCRIPTION)
    parser.add_argument("model", help="path of a .keras file, or folder of a run")
    parser.add_argument(
        "--to",
        required=True,
        help="folder of the numbered exports, or path of the file",
    )
    parser.add_argument("--format", default="savedmodel", help=", ".join(FORMATS))
    parser.add_argument("--version", type=int, help="default: the next free number")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="file with one class name per line; default: those of the model",
    )
    parser.add_argument(
        "--weights", default="float32", help=f"{', '.join(versions.WEIGHTS)}"
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="measure the score with quantized weights on the recipe's test data",
    )
    parser.add_argument("--recipe", help=f"for --test: {recipe_of.HELP_OF_RUN}")
    parser.add_argument(
        "--data", metavar="DIR", help="folder with train/ and test/, for some recipes"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="publish without verifying the outputs"
    )
    return parser


def check(options):
    """Raises an error for invalid options, as far as they can be checked without Keras."""
    check_choice("--format", options.format, FORMATS)
    check_choice("--weights", options.weights, versions.WEIGHTS)
    options.model = arguments.model_file(options.model)
    if options.recipe is not None:
        recipe_of.check(options.recipe)
    arguments.check_folder("--data", options.data)
    if options.labels is not None:
        arguments.check_file("The file of --labels", options.labels)
    if options.format == "savedmodel":
        versions.check_serving()
        if options.version is not None:
            versions.check_version(options.to, options.version)
    else:
        versions.check_format(options.format, options.to, not options.no_check)
    if options.test and options.recipe is None:
        recipe_of.check_run(options.model.parent, options.data)


def run(options):
    """Exports the model."""
    # Set before Keras is imported, which chooses the backend by it.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    console.import_keras()
    with console.waiting("exporting"):
        exported = _export(options)
    print(f"exported: {exported}")
    if options.format == "savedmodel":
        print(_next(Path(options.to)))


def _next(folder):
    folder = folder.resolve()
    return (
        f"next: docker run -p 8500:8500 -p 8501:8501 -v {folder}:/models/{folder.name} "
        f"-e MODEL_NAME={folder.name} tensorflow/serving, then "
        + arguments.command_line("serve-client", "localhost:8500", folder.name)
        + " FILE"
    )


def _export(options):
    from keras_perceiver.cli import models
    from keras_perceiver.serving import export_file, export_for_serving

    model = models.load(options.model)
    use_check = not options.no_check
    if options.format != "savedmodel":
        return export_file(model, options.to, options.format, use_check=use_check)
    if options.labels:
        model.class_names = _labels(Path(options.labels))
    return export_for_serving(
        model,
        options.to,
        version=options.version,
        weights=options.weights,
        metrics=models.metrics(options.model, model),
        test_data=_test_data(options) if options.test else None,
        use_check=use_check,
    )


def _labels(path):
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise ValueError(
            f"The file of --labels must be text in UTF-8. Received: {str(path)!r} "
            f"({error}). Save it as UTF-8."
        ) from error


def _test_data(options):
    recipe = recipe_of.of_run(options.model.parent, options.recipe)
    return recipe.splits(recipe.step_size, data_folder=options.data).test
