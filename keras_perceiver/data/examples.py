"""Finds the examples in folders of labeled files and joins their modalities."""

import collections
import unicodedata
from typing import NamedTuple

from keras_perceiver._checks import check_names

# Files and folders that operating systems and file servers create.
_OF_SYSTEMS = frozenset(
    {
        *("__macosx", "$recycle.bin", "system volume information", "lost+found"),
        *("@eadir", "#recycle", "@recycle", "@recently-snapshot", "@tmp"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__"),
    }
)


class Example(NamedTuple):
    """An example of a folder: its label and its files."""

    label: int
    stem: str
    paths: dict  # from modality to path, without missing ones
    lengths: dict  # from modality to length, once it was read


class Ignored(dict):
    """Paths that belong to no example, and their kind."""

    def text(self):
        """Returns the counts of the kinds that may be mistakes, or `""`."""
        kinds = {path: kind for path, kind in self.items() if kind not in _EXPECTED}
        if not kinds:
            return ""
        counts = collections.Counter(kinds.values()).most_common()
        found = ", ".join(f"{kind} ({count})" for kind, count in counts)
        return (
            f"Ignored in the data folder: {found}. `ignored` lists them, the first: "
            f"{next(iter(kinds))}"
        )


_HIDDEN = "hidden"
_BESIDE = "with the name of an example"  # such as its caption, or another modality
_EXPECTED = (_HIDDEN, _BESIDE)
_OF_SYSTEM = "of the operating system"
_FOLDER = "folder inside a class folder"
_OUTSIDE = "file outside the class folders"


def find_examples(folders, preprocessors, class_names, allow_missing, report):
    """Finds the examples of folders, sorted by class and name.

    Args:
        folders: Dict from modality to path.
        preprocessors: Dict from modality to `Preprocessor`.
        class_names: Sequence of strings, or `None` for the sorted names of the folders.
        allow_missing: Boolean, whether modalities of an example may be missing.
        report: Callable that takes a path and the error of a bad file.

    Returns:
        Tuple of the list of examples, the tuple of class names in Unicode's form NFC,
        and `Ignored`.
    """
    ignored = Ignored()
    # Modalities may share a folder. Each file in it belongs to one of them.
    names_by_folder = {}
    for name, folder in folders.items():
        names_by_folder.setdefault(folder, []).append(name)
    found = {}  # from class to pairs of a folder and its modalities
    for folder, names in names_by_folder.items():
        for path in _class_folders(folder, ignored):
            found.setdefault(_normal(path.name), []).append((path, names))
    if not found:
        raise _no_class(names_by_folder, preprocessors)
    class_names = _checked_names(found, class_names)
    examples = []
    empty = []
    for label, class_name in enumerate(class_names):
        files = {}
        for folder, names in found.get(class_name, ()):
            _find_files(folder, names, preprocessors, files, ignored, report)
        if not files and class_name in found:
            empty.append(found[class_name][0][0])
        for _, paths in sorted(files.items()):
            if len(paths) < len(preprocessors) and not allow_missing:
                missing = sorted(preprocessors.keys() - paths.keys())
                report(next(iter(paths.values())), _incomplete(paths, missing))
                continue
            paths = {name: paths[name] for name in preprocessors if name in paths}
            stem = _normal(next(iter(paths.values())).stem)
            examples.append(Example(label, stem, paths, {}))
    if not examples:
        _check_level(ignored, preprocessors)
    stems = {(p.parent, e.stem) for e in examples for p in e.paths.values()}
    for path, kind in ignored.items():
        if kind != _FOLDER and (path.parent, _normal(path.stem)) in stems:
            ignored[path] = _BESIDE
    for folder in empty:
        report(folder, _empty_class(folder, preprocessors))
    return examples, class_names, ignored


def _entries(folder, ignored):
    """Returns the sorted paths in a folder, without hidden and system files."""
    visible = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            ignored[path] = _HIDDEN
        elif path.name.lower() in _OF_SYSTEMS:
            ignored[path] = _OF_SYSTEM
        else:
            visible.append(path)
    return visible


def _class_folders(folder, ignored):
    if not folder.is_dir():
        raise FileNotFoundError(
            "`folder` must be a folder of class folders. Received: "
            f"{str(folder)!r}, which is not a folder. Correct the path."
        )
    paths = _entries(folder, ignored)
    ignored.update({path: _OUTSIDE for path in paths if not path.is_dir()})
    return [path for path in paths if path.is_dir()]


def _checked_names(found, class_names):
    for name in found:
        if not _is_text(name):
            raise ValueError(
                "The name of a class folder must be text in UTF-8. Received: "
                f"{name!r}. Rename the folder."
            )
    if class_names is None:
        return tuple(sorted(found))
    class_names = tuple(map(_normal, check_names("class_names", class_names)))
    check_names("class_names", class_names)  # two may be equal in this form
    unknown = sorted(found.keys() - set(class_names))
    if unknown:
        raise ValueError(
            "Every class folder must be one of `class_names`. Received: folders "
            f"{unknown}, class_names={list(class_names)}. Remove or rename the folders."
        )
    return class_names


def _find_files(folder, names, preprocessors, files, ignored, report):
    """Adds the files of a class folder to `files`, joined by name."""
    for path in _entries(folder, ignored):
        suffix = path.suffix.lower()
        if path.is_dir():
            ignored[path] = _FOLDER
            continue
        owners = [name for name in names if suffix in preprocessors[name].suffixes]
        if not owners:
            ignored[path] = (
                f"with extension {suffix!r}" if suffix else "without an extension"
            )
            continue
        # With one modality there is nothing to join.
        is_joined = len(preprocessors) > 1
        key = (path.stem, "") if is_joined else (path.name, str(path))
        paths = files.setdefault((_normal(key[0]), key[1]), {})
        for name in owners:
            if name in paths:
                report(path, _duplicate(path, paths[name]))
            else:
                paths[name] = path


def _normal(name):
    """Returns a name in Unicode's normalization form NFC.

    macOS and Linux write accented letters in different forms, which look the same.
    """
    return unicodedata.normalize("NFC", name)


def _is_text(name):
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_file(folder, preprocessors):
    """Returns a readable file of a folder, or `None`."""
    suffixes = {suffix for p in preprocessors.values() for suffix in p.suffixes}
    paths = sorted(folder.iterdir())
    return next((p for p in paths if p.suffix.lower() in suffixes), None)


def _no_class(folders, preprocessors):
    rule = "Files must be at `<folder>/<class>/<file>`."
    for folder in folders:
        path = _first_file(folder, preprocessors)
        if path is not None:
            return ValueError(
                f"{rule} Received: {str(folder)!r} with files in it, such as "
                f"{path.name!r}. Pass the parent folder, or make a folder for each class."
            )
    return ValueError(
        f"{rule} Received: {[str(folder) for folder in folders]} without a subfolder. "
        "Make a folder for each class."
    )


def _check_level(ignored, preprocessors):
    """Raises an error if the files are one level too deep."""
    for folder in (path for path, kind in ignored.items() if kind == _FOLDER):
        path = _first_file(folder, preprocessors)
        if path is not None:
            train = folder.parent.with_name("train")
            found = train if train.is_dir() else folder.parent
            raise ValueError(
                "Files must be at `<folder>/<class>/<file>`. Received: a folder whose "
                f"files are one level deeper, such as {str(path)!r}. Pass "
                f"{str(found)!r}."
            )


def _duplicate(path, other):
    return ValueError(
        "An example must have one file of each modality. Received: "
        f"{path} and {other.name}. Remove or rename one."
    )


def _empty_class(folder, preprocessors):
    suffixes = sorted({suffix for p in preprocessors.values() for suffix in p.suffixes})
    return ValueError(
        f"A class folder must contain files. Received: none of {suffixes} in {folder}. "
        "Remove the folder, or skip it with `skip_bad_files=True`."
    )


def _incomplete(paths, missing):
    return ValueError(
        "An example must have a file of every modality. Received: "
        f"{next(iter(paths.values()))} without {missing}. Add files of the same name, "
        "or set `allow_missing=True`."
    )
