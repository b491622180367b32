"""The recipe of a command line: a name, or the user's own recipe file."""

from pathlib import Path

from keras_perceiver import recipes
from keras_perceiver.cli import arguments, console

_HELP = (
    "name of a recipe (`keras-perceiver recipes` lists them), or path of your own recipe "
    "file with a `keras_perceiver.training.Recipe` named RECIPE, which is executed, so "
    "only pass files that you trust"
)
_KINDS = {
    "images": "images",
    "audio": "audio files",
    "points": "point clouds or meshes",
}

HELP_OF_RUN = (
    "name of a recipe, or path of your own recipe file, which is executed; default: the "
    "recipe of the model's run, with its overrides"
)


def add_arguments(parser):
    """Adds the arguments for the recipe and its data to a parser."""
    parser.add_argument("recipe", nargs="?", help=_HELP)
    for kind, files in _KINDS.items():
        parser.add_argument(
            f"--{kind}",
            metavar="DIR",
            help=f"instead of a recipe: your {files} at DIR/CLASS/FILE, or in DIR/train "
            "and DIR/test; the sizes of the model are chosen from the files",
        )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder of the data, for recipes that read one; see the recipe's card",
    )


def check_arguments(options):
    """Checks the arguments of `add_arguments`, and sets the recipe for a folder."""
    given = {kind: getattr(options, kind) for kind in _KINDS}
    given = {kind: folder for kind, folder in given.items() if folder is not None}
    names = [
        *(f"--{kind}" for kind in given),
        *([options.recipe] * bool(options.recipe)),
    ]
    if len(names) != 1:
        raise ValueError(
            "There must be one recipe, or one of --images, --audio and --points. "
            f"Received: {' and '.join(names) or 'none'}. Pass one."
        )
    for kind, folder in given.items():
        if options.data is not None:
            raise ValueError(
                f"--{kind} sets the folder of the data. Received: --data "
                f"{options.data} as well. Remove it."
            )
        arguments.check_folder(f"--{kind}", folder)
        options.recipe, options.data = kind, folder
    options.is_sized = bool(given)
    check(options.recipe)
    arguments.check_folder("--data", options.data)


def sizes(options):
    """Returns settings chosen from the files of `--images` and the like, or `{}`.

    Prints a description of the files.
    """
    if not options.is_sized:
        return {}
    from keras_perceiver.recipes._sizes import settings

    found, text = settings(options.recipe, options.data)
    console.say(f"{options.data}: {text}")
    return found


def is_file(text):
    """Returns whether a text is the path of a recipe file."""
    return text.endswith(".py")


def name(text):
    """Returns the name of a recipe, or `None` if it is in a file."""
    return None if is_file(text) else text


def check(text):
    """Raises an error unless there is such a recipe, without executing a file."""
    if not is_file(text):
        recipes.check_name(text)
    elif not Path(text).is_file():
        raise FileNotFoundError(
            f"The recipe file must exist. Received: {text!r}. Correct the path, or "
            f"choose one of the recipes {', '.join(recipes.names())}."
        )


def get(text):
    """Returns the `Recipe`, executing its file if `text` is the path of a file."""
    return recipes.load(text) if is_file(text) else recipes.get(text)


def check_run(folder, data):
    """Raises an error unless a folder has a run of a recipe, and its data are given.

    Args:
        folder: Path of the folder of the run.
        data: String, the folder of the data, or `None`.
    """
    kind = recipes.name_of_run(folder)
    if kind in _KINDS and data is None:
        raise ValueError(
            f"A run of --{kind} needs its files again. Received: {str(folder)!r} without "
            f"--data. Pass the folder that was passed as --{kind} with --data DIR."
        )


def of_run(folder, text=None):
    """Returns the `Recipe` of a run, with its overrides.

    Args:
        folder: Path of the folder of the run.
        text: String as for `get`, or `None` for the recipe that the run names.
    """
    return recipes.of_run(folder) if text is None else get(text)
