"""Opens a local page on which one explores a model."""

import contextlib
import os
import threading
import webbrowser
from pathlib import Path

from keras_perceiver._checks import check_choice
from keras_perceiver.cli import arguments, console

_DESCRIPTION = """Opens a local page: draw, drop a file or type, and see what a model
answers and what its latents attend to; hide parts of the input, and see the answer
change.

  keras-perceiver explore runs/digits/1
  keras-perceiver explore hf://deepmind/vision-perceiver-fourier
  keras-perceiver explore imagenet

MODEL is a .keras file, the folder of a run or of a preset, a handle, or a built-in preset,
whose weights are random. The page is for this machine only, unless --host is given: then
everybody who reaches the address can use the model. Files of users are never stored.
"""


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("explore", _DESCRIPTION)
    parser.add_argument("model", help="file, folder, handle or built-in preset")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; default: 127.0.0.1, this machine only",
    )
    parser.add_argument(
        "--port", type=int, help="default: the first free one from 7860 on"
    )
    parser.add_argument(
        "--max-mb", type=float, default=20, help="size of a file in MB; default: 20"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="only print the address"
    )
    return parser


def check(options):
    """Raises an error for invalid options, as far as they can be checked without Keras."""
    arguments.check_backend()
    arguments.check_numbers(options, "max_mb")
    if options.port is not None and not 0 <= options.port < 2**16:
        raise ValueError(
            f"--port must be from 0 to 65535. Received: --port {options.port}. Choose "
            "another."
        )
    extra = '"keras_perceiver[explore]"'
    arguments.check_installed("gradio", "Gradio, which makes the page,", extra)
    arguments.check_installed("matplotlib", "Matplotlib, which draws inputs,", extra)
    options.title = _title(options.model)
    options.is_preset = _is_preset(options.model)
    if not options.is_preset:
        options.model = arguments.model_file(options.model)


def _is_preset(name):
    """Returns whether a name is that of a preset, not of a `.keras` file or a run."""
    from keras_perceiver.cli import presets

    if name in presets.names() or "://" in name:
        return True
    path = Path(name)
    if (path / "config.json").is_file():
        return True
    if not path.exists() and path.suffix != ".keras" and path.name == name:
        check_choice("The model", name, presets.names())
    return False


def _title(model):
    """Returns the name of a model on the page, without where it is on this machine."""
    return model if "://" in model else "/".join(Path(model).parts[-2:])


def run(options):
    """Serves the page until it is interrupted."""
    console.import_keras()
    from keras_perceiver.cli import models
    from keras_perceiver.explorer.server import serve

    if options.is_preset:
        model = models.from_preset(options.model)
    else:
        model = models.load(options.model)

    def started(url):
        print(url, flush=True)
        console.say("Press Ctrl-C to stop.")
        if not options.no_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    with contextlib.suppress(KeyboardInterrupt):
        serve(
            model,
            options.title,
            options.host,
            options.port,
            options.max_mb,
            started,
        )
    console.say("stopped")
    # TensorFlow may wait for minutes while Python collects what is left.
    os._exit(0)
