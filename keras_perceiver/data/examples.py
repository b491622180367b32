"""Examples in folders of labelled files: finds them and joins their modalities."""

import collections
import unicodedata
from typing import NamedTuple

from keras_perceiver._checks import check_names

# What operating systems and their file servers write beside the files of users.
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
    paths: dict  # from modality to path, without those that are missing
    lengths: dict  # from modality to length, as far as it was read


class Ignored(dict):
    """What is no file of an example: from path to what it is."""

    def text(self):
        """Returns how many there are of each kind that may be a mistake, or `""`."""
        kinds = {path: kind for path, kind in self.items() if kind not in _EXPECTED}
        if not kinds:
            return ""
        counts = collections.Counter(kinds.values()).most_common()
        found = ", ".join(f"{count} {kind}" for kind, count in counts)
        return (
            f"Ignored in the folder of data: {found}. `ignored` lists them, the first: "
            f"{next(iter(kinds))}"
        )


_HIDDEN = "hidden"
_BESIDE = "beside an example of its name"  # such as its caption, or another modality
_EXPECTED = (_HIDDEN, _BESIDE)
_OF_SYSTEM = "of the operating system"
_FOLDER = "folder in a folder of a class"
_OUTSIDE = "file in no folder of a class"


def find_examples(folders, preprocessors, class_names, allow_missing, report):
    """Finds the examples of folders, sorted by class and name.

    Args:
        folders: Dict from modality to path.
        preprocessors: Dict from modality to `Preprocessor`.
        class_names: Sequence of strings, or `None` for the names of the folders, sorted.
        allow_missing: Boolean, whether an example may lack modalities.
        report: Callable that takes a path and the error of a bad file.

    Returns:
        Tuple of the list of examples, the tuple of the class names in Unicode's form NFC,
        and `Ignored`.
    """
    ignored = Ignored()
    # Modalities may share a folder; each file in it is of one of them.
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
    """Returns what is in a folder, sorted, without what is hidden or of the system."""
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
            f"{str(folder)!r}, which is no folder. Correct the path."
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
    check_names("class_names", class_names)  # two may be one in this form
    unknown = sorted(found.keys() - set(class_names))
    if unknown:
        raise ValueError(
            "Every class folder must be one of `class_names`. Received: folders "
            f"{unknown}, class_names={list(class_names)}. Remove or rename the folders."
        )
    return class_names


def _find_files(folder, names, preprocessors, files, ignored, report):
    """Adds the files of a class folder by what joins them: name, and path if nothing."""
    for path in _entries(folder, ignored):
        suffix = path.suffix.lower()
        if path.is_dir():
            ignored[path] = _FOLDER
            continue
        owners = [name for name in names if suffix in preprocessors[name].suffixes]
        if not owners:
            ignored[path] = f"of ending {suffix!r}" if suffix else "without an ending"
            continue
        # Nothing is joined by the name of a lone modality.
        is_joined = len(preprocessors) > 1
        key = (path.stem, "") if is_joined else (path.name, str(path))
        paths = files.setdefault((_normal(key[0]), key[1]), {})
        for name in owners:
            if name in paths:
                report(path, _duplicate(path, paths[name]))
            else:
                paths[name] = path


def _normal(name):
    """Returns a name in one of the forms that Unicode has for letters with accents.

    macOS and Linux write them in different forms, which look the same.
    """
    return unicodedata.normalize("NFC", name)


def _is_text(name):
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_file(folder, preprocessors):
    """Returns a file that can be read in a folder, or `None`."""
    suffixes = {suffix for p in preprocessors.values() for suffix in p.suffixes}
    paths = sorted(folder.iterdir())
    return next((p for p in paths if p.suffix.lower() in suffixes), None)


def _no_class(folders, preprocessors):
    rule = "Files must lie in `<folder>/<class>/<file>`."
    for folder in folders:
        path = _first_file(folder, preprocessors)
        if path is not None:
            return ValueError(
                f"{rule} Received: {str(folder)!r} with files in it, such as "
                f"{path.name!r}. Pass the folder above it, or make a folder for each class."
            )
    return ValueError(
        f"{rule} Received: {[str(folder) for folder in folders]} without a folder in it. "
        "Make a folder for each class."
    )


def _check_level(ignored, preprocessors):
    """Raises an error if the files lie one level deeper than they should."""
    for folder in (path for path, kind in ignored.items() if kind == _FOLDER):
        path = _first_file(folder, preprocessors)
        if path is not None:
            raise ValueError(
                "Files must lie in `<folder>/<class>/<file>`. Received: a folder whose "
                f"files lie one level deeper, such as {str(path)!r}. Pass "
                f"{str(folder.parent)!r}."
            )


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


def _incomplete(paths, missing):
    return ValueError(
        "An example must have a file of every modality. Received: "
        f"{next(iter(paths.values()))} without {missing}. Add files of the same name, "
        "or set `allow_missing=True`."
    )
