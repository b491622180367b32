"""Lists the recipes, or prints the card of one."""

from keras_perceiver import recipes
from keras_perceiver.cli import arguments

_DESCRIPTION = """Lists the recipes, or prints the card of one.

  keras-perceiver recipes
  keras-perceiver recipes digits

`keras-perceiver train RECIPE --list` prints the settings of a recipe.
"""


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("recipes", _DESCRIPTION)
    parser.add_argument("recipe", nargs="?", help="name of a recipe")
    return parser


def check(options):
    """Raises an error for invalid options."""
    if options.recipe is not None:
        recipes.check_name(options.recipe)


def run(options):
    """Prints the list or the card."""
    if options.recipe is not None:
        print(recipes.card(options.recipe))
        return
    names = recipes.names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {recipes.card(name).splitlines()[0]}")
