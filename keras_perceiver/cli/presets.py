"""Lists the presets of models, or prints the settings of one."""

import ast
from pathlib import Path

from keras_perceiver._checks import check_choice
from keras_perceiver.cli import arguments, console

_DESCRIPTION = """Lists the presets of models, or prints the settings of one.

  keras-perceiver presets
  keras-perceiver presets imagenet

In Python, `PerceiverClassifier.from_preset(NAME)` creates the model, with random weights.
"""


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("presets", _DESCRIPTION)
    parser.add_argument("preset", nargs="?", help="name of a preset")
    return parser


def check(options):
    """Raises an error for invalid options, as far as they can be checked without Keras."""
    arguments.check_backend()
    if options.preset is not None:
        check_choice("The preset", options.preset, names())


def names():
    """Returns the names of the presets, read from their module without importing Keras."""
    path = Path(__file__).parents[1] / "models" / "presets.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PRESETS":
            presets = next(x for x in ast.walk(node) if isinstance(x, ast.Dict))
            return [ast.literal_eval(key) for key in presets.keys]
    raise RuntimeError(f"{path} must assign `PRESETS`.")


def run(options):
    """Prints the list or the settings."""
    console.import_keras()
    from keras_perceiver.models.presets import PRESETS

    if options.preset is not None:
        preset = PRESETS[options.preset]
        print(preset.source)
        for path, value in preset.encoder.paths().items():
            print(f"{path}={value}")
        for path, value in (preset.decoder.paths() if preset.decoder else {}).items():
            print(f"decoder.{path}={value}")
        return
    width = max(map(len, PRESETS))
    print(f"{'preset':{width}}  {'parameters':>11}  {'GFLOPs':>8}  inputs  classes")
    for name, preset in PRESETS.items():
        print(
            f"{name:{width}}  {preset.parameters:>11,}  {preset.gflops:>8.4g}  "
            f"{preset.num_inputs:>6}  {preset.num_classes:>7}"
        )
