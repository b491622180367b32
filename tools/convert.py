"""Converts published weights to a preset folder, or a model to Hugging Face's layout.

    python tools/convert.py imagenet_fourier_position_encoding.pystate presets/fourier
    python tools/convert.py hf://deepmind/vision-perceiver-fourier presets/fourier
    python tools/convert.py presets/fourier for_transformers --to hugging-face

A preset folder is what `PerceiverClassifier.from_preset` loads.
"""

import argparse
from pathlib import Path


def parser():
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        help="a file of DeepMind's, a folder that transformers or save_to_preset has "
        "written, a .keras file, or hf://<owner>/<model>",
    )
    parser.add_argument("folder", type=Path, help="the folder to write")
    parser.add_argument(
        "--to",
        choices=["preset", "hugging-face"],
        default="preset",
        help="layout of the folder (default: preset)",
    )
    return parser


def main():
    options = parser().parse_args()
    if options.folder.exists() and any(options.folder.iterdir()):
        raise SystemExit(f"error: {options.folder} exists. Give another folder.")
    try:
        model = _load(options.source)
        if options.to == "preset":
            model.save_to_preset(options.folder)
        else:
            from keras_perceiver.convert import save_to_hugging_face

            save_to_hugging_face(model, options.folder)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{model.count_params():,} parameters -> {options.folder}")


def _load(source):
    import keras

    import keras_perceiver as kp
    from keras_perceiver.convert import load_deepmind

    if source.endswith(".keras"):
        return keras.saving.load_model(source)
    if Path(source).is_file():
        return load_deepmind(source)
    return kp.PerceiverClassifier.from_preset(source)


if __name__ == "__main__":
    main()
