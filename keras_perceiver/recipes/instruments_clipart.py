"""Notes and drawings: a Perceiver on two modalities, either of which may be missing.

Each example is a drawing and a note. A class consists of a clip art category and a family
of instruments. Training drops either modality at random. `metrics.json` has the test
accuracy with both, and without each.

Command:   keras-perceiver train instruments_clipart --data DIR, DIR with
           instruments/ and clipart/, each with train/ and test/
Hardware:  1 CPU core (AMD EPYC with AVX2), JAX, 2026-11-25
Time:      264 s of training, on a shared machine
Score:     test accuracy 0.588 with both, 0.613 without the drawing, 0.496 without the
           note (seed 0), on 605 pairs; 0.256 of them are of the largest class
"""

import os
import tempfile
from pathlib import Path

from keras_perceiver.config import Config
from keras_perceiver.data import folder_splits
from keras_perceiver.recipes import _mock, clipart, instruments_mel
from keras_perceiver.recipes._small import folder_recipe, series

# The folder of notes and the folder of drawings that make up each class.
CLASSES = {
    "bass": "animals",
    "drum_kit": "computer",
    "organ": "food",
    "piano": "people",
    "reed": "recreation",
    "strings": "signs_and_symbols",
}


PREPROCESSOR = Config(
    dict, audio=instruments_mel.PREPROCESSOR, image=clipart.PREPROCESSOR
)


def _data(batch_size, seed, folder, preprocessor, augment_audio, augment_image):
    def augment(inputs, key):
        return {
            **augment_audio(inputs, key),
            "image": augment_image(inputs["image"], key),
        }

    with tempfile.TemporaryDirectory() as pairs:
        for part in ("train", "test"):
            _link_pairs(Path(folder), Path(pairs), part, preprocessor)
        # All data are in memory when this returns. `allow_missing` gives both a mask.
        return folder_splits(
            pairs,
            preprocessor,
            batch_size,
            seed,
            augment,
            group=lambda stem: series(stem.split("-")[0]),
            allow_missing=True,
        )


def _link_pairs(folder, pairs, part, preprocessor):
    """Links every drawing and a note for it under matching names.

    There are more drawings than notes, so notes are repeated. Names start with that of
    the note, so that a split can keep the pairs of a note together.
    """
    for instrument, category in CLASSES.items():
        notes = folder / "instruments" / part / instrument
        notes = _found(notes, preprocessor["audio"].suffixes)
        drawings = folder / "clipart" / part / category
        drawings = _found(drawings, preprocessor["image"].suffixes)
        target = pairs / part / f"{instrument}_{category}"
        target.mkdir(parents=True)
        for i, drawing in enumerate(drawings):
            note = notes[i % len(notes)]
            name = f"{note.stem}-{drawing.stem}"
            for file in (note, drawing):
                os.symlink(file.resolve(), target / f"{name}{file.suffix}")


def _found(folder, suffixes):
    files = sorted(file for suffix in suffixes for file in folder.glob(f"*{suffix}"))
    if not files:
        raise FileNotFoundError(
            "The data must be folders instruments/ and clipart/, each with train/ and "
            f"test/. Received: no file of {suffixes} in {folder}. Correct `--data`."
        )
    return files


def _write_mock(folder):
    preprocessor = PREPROCESSOR()
    _mock.write_files(folder / "instruments", preprocessor["audio"], CLASSES.keys())
    _mock.write_files(folder / "clipart", preprocessor["image"], CLASSES.values())


RECIPE = folder_recipe(
    "instruments_clipart",
    Config(
        _data,
        augment_audio=instruments_mel.AUGMENT,
        augment_image=clipart.AUGMENT,
    ),
    PREPROCESSOR,
    {
        "audio": instruments_mel.MODALITY,
        "image": clipart.MODALITY.replace({"use_mask": True}),
    },
    epochs=40,
    write_mock=_write_mock,
    modality_dropout=0.3,
)
