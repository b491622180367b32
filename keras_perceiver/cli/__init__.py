"""The command `keras-perceiver`, or `python -m keras_perceiver`.

There is one module per subcommand with three functions: `parser()` and
`check(options)`, which only need the standard library, so that errors in arguments are
reported within a second, and `run(options)`.
"""

import errno
import importlib
import os
import sys
import traceback
import warnings

from keras_perceiver import __version__
from keras_perceiver._checks import check_choice
from keras_perceiver.cli.arguments import PROGRAM

COMMANDS = {
    "train": "train, test, save and export a model: a recipe, or a folder of files",
    "evaluate": "evaluate a trained model: metrics, also per class",
    "tune": "search hyperparameters for a recipe, and train the best model",
    "export": "export a model for TF Serving, ONNX Runtime or LiteRT",
    "predict": "predict for files, or for all files in a folder",
    "explore": "open a page: give a model inputs, see its answer and attention",
    "results": "show a table and learning curves of all runs in a folder",
    "verify": "check the files of an exported version against their hashes",
    "serve-client": "send requests to a TF Serving server, or run a load test",
    "recipes": "list the recipes, or print the card of one",
    "presets": "list the presets of models, or print the settings of one",
}

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full


def main(arguments=None):
    """Runs a subcommand.

    Args:
        arguments: List of strings. Defaults to those of the process.

    Raises:
        SystemExit: with an error message on one line, or for help.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    use_trace = "--trace" in arguments
    name, *arguments = [x for x in arguments if x != "--trace"] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return
    previous_format = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"warning: {_one_line(message)}\n"
    try:
        check_choice("The command", name, list(COMMANDS))
        module = f"keras_perceiver.cli.{name.replace('-', '_')}"
        command = importlib.import_module(module)
        options = command.parser().parse_args(arguments)
        options.arguments = arguments
        command.check(options)
        command.run(options)
        sys.stdout.flush()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            _leave(error.code or 0)
        _leave(str(error.code))
    except BrokenPipeError:  # from `| head`
        _leave(1)
    except KeyboardInterrupt:
        _leave("interrupted")
    except Exception as error:
        if use_trace:
            traceback.print_exc()
        _leave(f"error: {_text(error)}")
    finally:
        warnings.formatwarning = previous_format


def _help():
    lines = [
        f"usage: {PROGRAM} COMMAND ...",
        "",
        "Perceivers on your own files and arrays, from training to serving.",
        "",
        *(f"  {name:14}{text}" for name, text in COMMANDS.items()),
        "",
        f"{PROGRAM} COMMAND --help lists the options of a command. With --trace, errors "
        "have",
        "Python's traceback. The environment variable KERAS_BACKEND sets the backend:",
        "tensorflow, jax or torch.",
    ]
    return "\n".join(lines)


def _text(error):
    """Returns the message of an error on one line."""
    text = _one_line(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"A file, or this output, could not be written: {text}. Make room."
    if isinstance(error, (ValueError, OSError, ImportError, RuntimeError, TypeError)):
        return text
    return f"{type(error).__name__}: {text}. Run it again with --trace for a traceback."


def _one_line(text):
    return " ".join(str(text).split())


def _leave(status):
    """Exits the process, and others that train together with it."""
    try:
        sys.stdout.flush()
    except OSError:  # a closed pipe or a full disk, which must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # It may not be imported yet.
    distribution = sys.modules.get("keras_perceiver.distribution")
    (distribution.exit_process if distribution else sys.exit)(status)
