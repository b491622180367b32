"""Exports a `.keras` file, of whatever backend, for TF Serving, ONNX Runtime or LiteRT.

    python tools/export.py runs/digits/1/model.keras --to exports/digits
    python tools/export.py runs/digits/1/model.keras --to digits.onnx --format onnx

The metrics of the model's card come from the `metrics.json` beside the file, the signature
`encoded` from the preprocessor in the model. The export runs under TensorFlow.
"""

import argparse
import json
import os
import sys
from pathlib import Path

FORMATS = ("savedmodel", "onnx", "litert")


def main(arguments=None):
    options = parser().parse_args(arguments)
    try:
        print(f"exported: {_export(options)}")
    except (ValueError, OSError, TypeError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def parser():
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="path of a .keras file")
    parser.add_argument(
        "--to",
        required=True,
        help="folder of the numbered exports, or name of the file",
    )
    parser.add_argument("--format", default="savedmodel", help=", ".join(FORMATS))
    parser.add_argument("--version", type=int, help="default: the next free number")
    parser.add_argument(
        "--labels",
        help="file with the name of a class in each line (default: the model's)",
    )
    parser.add_argument(
        "--weights",
        default="float32",
        help="float32 (default), float16, bfloat16, int8",
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="measure the score of lighter weights on the recipe's test data",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder with train/ and test/, for some recipes"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="publish without comparing"
    )
    return parser


def _export(options):
    if options.format not in FORMATS:
        raise ValueError(
            f"--format must be one of {FORMATS}. Received: {options.format!r}. "
            "Choose one of them."
        )
    path = Path(options.model)
    if path.suffix != ".keras" or not path.is_file():
        raise FileNotFoundError(
            f"The model must be a .keras file. Received: {options.model!r}. Correct the "
            "path, or save the model with `model.save`."
        )
    # Before Keras is imported, which picks the backend by it.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    from keras_perceiver import recipes
    from keras_perceiver.serving import export_file, export_for_serving

    metrics_path = path.with_name("metrics.json")
    metrics = json.loads(metrics_path.read_text()) if metrics_path.is_file() else {}
    model = keras.saving.load_model(path, compile=False)
    use_check = not options.no_check
    if options.format != "savedmodel":
        return export_file(model, options.to, options.format, use_check=use_check)
    recipe = recipes.of_run(path.parent) if "recipe" in metrics else None
    if options.labels:
        model.class_names = Path(options.labels).read_text().splitlines()
    return export_for_serving(
        model,
        options.to,
        version=options.version,
        weights=options.weights,
        metrics=metrics,
        test_data=_test_data(recipe, options) if options.test else None,
        use_check=use_check,
    )


def _test_data(recipe, options):
    if recipe is None:
        raise ValueError(
            "--test needs the recipe of the model. Received: no metrics.json beside "
            f"{options.model!r}. Leave --test out, or export from the run's folder."
        )
    return recipe.splits(recipe.step_size, data_folder=options.data).test


if __name__ == "__main__":
    main()
