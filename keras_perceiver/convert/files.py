"""Files with weights: safetensors, and those of PyTorch, none of which runs code."""

from collections.abc import Mapping
from pathlib import Path

from keras_perceiver._files import read_json

SAFETENSORS, _TORCH = "model.safetensors", "pytorch_model.bin"
_INSTALL = 'Install it: pip install "keras_perceiver[hub]".'


def weights_in(folder):
    """Returns a mapping from the names of tensors to arrays, for the weights of a folder.

    Safetensors are read one tensor at a time, from one file or several.

    Args:
        folder: Path.

    Raises:
        FileNotFoundError: if the folder has no weights.
        ImportError: if the library that reads them is not installed.
        ValueError: if a file is damaged.
    """
    folder = Path(folder)
    for name, reader in ((SAFETENSORS, SafetensorsFiles), (_TORCH, TorchFiles)):
        if (folder / name).is_file():
            return reader(folder, [name])
        index = folder / f"{name}.index.json"
        if index.is_file():
            places = read_json(index).get("weight_map")
            if not isinstance(places, dict) or not places:
                raise ValueError(
                    f"{index} must have a `weight_map` of tensors to files. Get the file "
                    "again."
                )
            return reader(
                folder, sorted({_file_name(index, n) for n in places.values()})
            )
    raise FileNotFoundError(
        f"{folder} must contain weights, `{SAFETENSORS}` or `{_TORCH}`. Received: "
        f"{sorted(path.name for path in folder.iterdir())}. Get the files of the model "
        "again."
    )


def _file_name(index, name):
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(
            f"{index} must name files beside it. Received: {name!r}. Get the file again."
        )
    return name


def safetensors_for(file):
    """Returns the library for a safetensors file, or raises what to install."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"{file} needs safetensors. {_INSTALL}") from error
    return safetensors


class SafetensorsFiles(Mapping):
    """The tensors of some safetensors files, read when they are asked for."""

    def __init__(self, folder, names):
        safetensors = safetensors_for(names[0])
        self._folder, self._files, self._place = folder, [], {}
        for name in names:
            try:
                file = safetensors.safe_open(folder / name, framework="np")
            except (OSError, safetensors.SafetensorError) as error:
                raise ValueError(
                    f"{folder / name} must be a whole safetensors file. Received: "
                    f"{error}. Get the file again."
                ) from error
            self._place |= dict.fromkeys(file.keys(), file)

    def shape(self, name):
        return tuple(self._place[name].get_slice(name).get_shape())

    def __getitem__(self, name):
        return self._place[name].get_tensor(name)

    def __iter__(self):
        return iter(self._place)

    def __len__(self):
        return len(self._place)

    def __str__(self):
        return str(self._folder)


class TorchFiles(Mapping):
    """The tensors of some files of PyTorch, which may hold tensors and nothing else."""

    def __init__(self, folder, names):
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                f"Reading {names[0]} needs PyTorch. Install it: pip install torch. Or get "
                f"the weights as `{SAFETENSORS}`."
            ) from error
        self._folder, self._tensors = folder, {}
        for name in names:
            try:
                # Tensors only: no code of the file is run.
                found = torch.load(folder / name, map_location="cpu", weights_only=True)
            except Exception:  # of any class, as the file is damaged
                found = None  # the error advises to run the code of the file
            if not isinstance(found, dict) or not all(
                isinstance(tensor, torch.Tensor) for tensor in found.values()
            ):
                received = "other content, or a damaged file"
                if not (folder / name).is_file():
                    received = "no such file"
                raise ValueError(
                    f"{folder / name} must be a file of PyTorch that holds tensors by "
                    f"name and nothing else. Received: {received}. Nothing of it was "
                    f"run. Get the file again, or the weights as `{SAFETENSORS}`."
                )
            self._tensors |= found

    def shape(self, name):
        return tuple(self._tensors[name].shape)

    def __getitem__(self, name):
        tensor = self._tensors[name]
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    def __iter__(self):
        return iter(self._tensors)

    def __len__(self):
        return len(self._tensors)

    def __str__(self):
        return str(self._folder)
