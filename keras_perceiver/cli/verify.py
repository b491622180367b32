"""Checks the files of an exported version against the hashes in its manifest."""

from pathlib import Path

from keras_perceiver.cli import arguments

_DESCRIPTION = """Checks the files of an exported version against its SHA256SUMS.

  keras-perceiver verify exports/digits/1

Files that are damaged, missing or added cause an error with their names. Without Python,
`sha256sum --check SHA256SUMS` in the folder of the version checks the same hashes.
"""


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("verify", _DESCRIPTION)
    parser.add_argument("version", type=Path, help="folder of an exported version")
    return parser


def check(options):
    """Raises an error for invalid options."""
    arguments.check_folder("The version", str(options.version))


def run(options):
    """Checks the files."""
    from keras_perceiver.serving.manifest import verify_version

    print(f"verified: {verify_version(options.version)} files in {options.version}")
