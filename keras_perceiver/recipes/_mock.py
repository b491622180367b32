"""Folders of random files, to test a recipe without its data."""

import numpy as np

_NUM_EXAMPLES = 5


def write_files(folder, preprocessor, class_names=("first", "second")):
    """Writes `<folder>/train` and `<folder>/test` of random files, five per class.

    Args:
        folder: Path.
        preprocessor: `Preprocessor` of the files.
        class_names: Sequence of strings.
    """
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in class_names:
            (folder / part / name).mkdir(parents=True)
            for i in range(_NUM_EXAMPLES):
                preprocessor.write_random(folder / part / name / f"{i}", rng)
