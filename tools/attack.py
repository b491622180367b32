"""Attacks the package with kills, damaged files, full disks, bad requests and threads.

    KERAS_BACKEND=tensorflow python tools/attack.py --output docs/reliability.md

Every attack ends in an outcome that is right, such as an error that names the damaged
file, or wrong, such as another result without an error. Prints a table of the outcomes,
replaces the table in --output, and fails if an outcome is wrong. Uses the small models and
the test server in tests/. About ten minutes on two cores.
"""

import argparse
import collections
import contextlib
import sys
import tempfile
import time
from pathlib import Path

import attack_models
import attack_runs
from common import check_backend, markdown_table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def main(arguments=None):
    options = parser().parse_args(arguments)
    backend = check_backend()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for name, attack in ATTACKS.items()
            if (count := getattr(options, name.split()[-1]))
            for row in _rows(name, _outcomes(attack, Path(folder), count, options.seed))
        ]
    table = markdown_table([("Attack", "Outcome", "Count", "Right"), *rows])
    print(table)
    print(
        f"{backend}, seed {options.seed}: {(time.monotonic() - start) / 60:.1f} minutes"
    )
    if options.output is not None:
        replace_table(options.output, table)
    num_wrong = sum(count for _, _, count, is_right in rows if is_right != "yes")
    if num_wrong:
        sys.exit(
            f"error: All outcomes must be right. Received: {num_wrong} wrong ones."
        )


def parser():
    """Returns the parser of the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, count in COUNTS.items():
        parser.add_argument(
            f"--{name}", type=int, default=count, help=f"default: {count}; 0 for none"
        )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--output", type=Path, help="Markdown file whose first table is replaced"
    )
    return parser


def _outcomes(attack, folder, count, seed):
    """Returns the outcomes of an attack, whose other output goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        return attack(folder / attack.__name__, count, seed)


def _rows(name, outcomes):
    """Returns rows of the table for pairs of an outcome and whether it is right."""
    counts = collections.Counter(outcomes)
    return [
        (name, outcome, count, "yes" if is_right else "NO")
        for (outcome, is_right), count in counts.most_common()
    ]


def replace_table(path, table):
    """Replaces the first table in a Markdown file."""
    before, rest = [], path.read_text().splitlines()
    while rest and not rest[0].startswith("|"):
        before.append(rest.pop(0))
    while rest and rest[0].startswith("|"):
        rest.pop(0)
    path.write_text("\n".join([*before, table, *rest]) + "\n")


COUNTS = {"kills": 20, "files": 150, "disks": 10, "requests": 60, "threads": 8}
ATTACKS = {
    "kills": attack_runs.kills,
    "damaged files": attack_models.damaged,
    "full disks": attack_runs.disks,
    "malformed requests": attack_models.requests,
    "threads": attack_models.threads,
}


if __name__ == "__main__":
    main()
