"""Examples in folders of labelled files: finds them and joins their modalities."""

from pathlib import Path
from typing import NamedTuple


class Example(NamedTuple):
    """An example of a folder: its label and its files."""

    label: int
    stem: str
    paths: dict  # from modality to path, without those that are missing
    lengths: dict  # from modality to length, as far as it was read


def check_class_names(folders, class_names):
    """Returns the tuple of the classes; raises an error if folders do not fit them."""
    found = set()
    for folder in folders.values():
        if not folder.is_dir():
            raise FileNotFoundError(
                "`folder` must be a folder of class folders. Received: "
                f"{str(folder)!r}, which is no folder. Correct the path."
            )
        found |= {path.name for path in _visible(folder) if path.is_dir()}
    if not found:
        raise ValueError(
            "Files must lie in `<folder>/<class>/<file>`. Received: "
            f"{[str(folder) for folder in folders.values()]} without a folder in it. "
            "Make a folder for each class."
        )
    if class_names is None:
        return tuple(sorted(found))
    unknown = sorted(found - set(class_names))
    if unknown:
        raise ValueError(
            "Every class folder must be one of `class_names`. Received: folders "
            f"{unknown}, class_names={list(class_names)}. Remove or rename the folders."
        )
    return tuple(class_names)


def _visible(folder):
    """Returns what is in a folder, sorted, without hidden files."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def find_examples(folders, preprocessors, class_names, allow_missing, report):
    """Returns the examples, sorted by class and name; reports what has no files."""
    examples = []
    for label, class_name in enumerate(class_names):
        stems = {}
        class_folders = {n: f / class_name for n, f in folders.items()}
        class_folders = {n: f for n, f in class_folders.items() if f.is_dir()}
        for name, class_folder in class_folders.items():
            for path in _visible(class_folder):
                if path.suffix.lower() not in preprocessors[name].suffixes:
                    continue
                # Nothing is joined by the name of a lone modality.
                stem = path.stem if len(preprocessors) > 1 else path.name
                paths = stems.setdefault(stem, {})
                if name in paths:
                    report(path, _duplicate(path, paths[name]))
                else:
                    paths[name] = path
        if class_folders and not stems:
            folder = next(iter(class_folders.values()))
            report(folder, _empty_class(folder, preprocessors))
        for stem, paths in sorted(stems.items()):
            if len(paths) < len(preprocessors) and not allow_missing:
                path = next(iter(paths.values()))
                missing = sorted(preprocessors.keys() - paths.keys())
                report(path, _incomplete(path, missing))
            else:
                examples.append(Example(label, Path(stem).stem, paths, {}))
    return examples


def _duplicate(path, other):
    return ValueError(
        "An example must have one file of each modality. Received: "
        f"{path} beside {other.name}. Remove or rename one."
    )


def _empty_class(folder, preprocessors):
    suffixes = sorted({suffix for p in preprocessors.values() for suffix in p.suffixes})
    return ValueError(
        f"A class folder must hold files. Received: none of {suffixes} in {folder}. "
        "Remove the folder, or leave out what is bad with `skip_bad_files=True`."
    )


def _incomplete(path, missing):
    return ValueError(
        f"An example must have a file of every modality. Received: {path} without "
        f"{missing}. Add files of the same name, or set `allow_missing=True`."
    )
