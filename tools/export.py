"""Exports a `.keras` file, of whatever backend, for TF Serving, ONNX Runtime or LiteRT.

    python tools/export.py runs/digits/1/model.keras --to exports/digits
    python tools/export.py runs/digits/1/model.keras --to digits.onnx --format onnx

Labels, and what the card says of the model, come from the `metrics.json` beside the file.
The export runs under TensorFlow.
"""

import argparse
import json
import os
import sys
from pathlib import Path

FORMATS = ("savedmodel", "onnx", "litert")


def main(arguments=None):
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
    parser.add_argument("--labels", help="file with a label in each line")
    parser.add_argument(
        "--weights",
        default="float32",
        help="float32 (default), float16, bfloat16, int8",
    )
    parser.add_argument(
        "--sigmoid",
        action="store_true",
        help="each class has a probability of its own: any number of labels an example",
    )
    parser.add_argument(
        "--crop",
        action="store_true",
        help="cut encoded images to the model's aspect ratio instead of distorting them",
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="measure the accuracy of lighter weights on the recipe's test data",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder with train/ and test/, for some recipes"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="publish without comparing"
    )
    options = parser.parse_args(arguments)
    try:
        print(f"exported: {_export(options)}")
    except (ValueError, OSError, TypeError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")


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

    from keras_perceiver.serving import export_file, export_for_serving

    metrics_path = path.with_name("metrics.json")
    metrics = json.loads(metrics_path.read_text()) if metrics_path.is_file() else {}
    model = keras.saving.load_model(path, compile=False)
    use_check = not options.no_check
    if options.format != "savedmodel":
        return export_file(model, options.to, options.format, use_check=use_check)
    labels = metrics.get("class_names")
    if options.labels:
        labels = Path(options.labels).read_text().splitlines()
    return export_for_serving(
        model,
        options.to,
        version=options.version,
        signatures=_cropping(model) if options.crop else None,
        labels=labels,
        use_sigmoid=options.sigmoid,
        weights=options.weights,
        metrics=metrics,
        test_data=_test_data(metrics, options) if options.test else None,
        use_check=use_check,
    )


def _cropping(model):
    from keras_perceiver.data import ImageFiles
    from keras_perceiver.serving.encoded import default_readers

    readers = default_readers(model.encoder.byte_array.modalities)
    for name, reader in readers.items():
        if isinstance(reader, ImageFiles):
            readers[name] = ImageFiles(reader.shape, crop_to_aspect_ratio=True)
    return {"encoded": readers}


def _test_data(metrics, options):
    from keras_perceiver import recipes

    if "recipe" not in metrics:
        raise ValueError(
            "--test needs the recipe of the model. Received: no metrics.json beside "
            f"{options.model!r}. Leave --test out, or export from the run's folder."
        )
    recipe = recipes.get(metrics["recipe"])
    if recipe.reads_folder and options.data is None:
        raise ValueError(
            f"The recipe {recipe.name!r} reads a folder. Received: no --data. "
            "Name the folder with --data DIR."
        )
    folder = (options.data,) if recipe.reads_folder else ()
    return recipe.data(metrics["batch_size"], metrics["seed"], *folder).test


if __name__ == "__main__":
    main()
