import json

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Audio,
    AudioPreprocessor,
    ByteArray,
    Image,
    ImagePreprocessor,
    Perceiver,
    PerceiverClassifier,
    PerceiverMultiLabelClassifier,
    SelfAttend,
)
from keras_perceiver.cli import main
from tests.data.files import write_audio, write_image

pytestmark = pytest.mark.one_backend

_NAMES = ("bird", "Käfer", "cat")
_IMAGES = ImagePreprocessor((8, 8, 1))


def _save(path, modality, preprocessor, task=PerceiverClassifier):
    """Returns an untrained model that is also saved in a file."""
    encoder = Perceiver(
        modality,
        num_latents=2,
        latent_dim=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        self_attend=SelfAttend(num_heads=1),
    )
    model = task(encoder, 3, preprocessor, class_names=_NAMES)
    model.save(path / "model.keras")
    return model


def _predict(capsys, *words):
    main(["predict", *map(str, words)])
    return capsys.readouterr().out


@pytest.mark.parametrize("task", [PerceiverClassifier, PerceiverMultiLabelClassifier])
def test_files_of_a_folder(tmp_path, capsys, task):
    model = _save(tmp_path, Image((8, 8, 1), num_bands=2), _IMAGES, task)
    files = [tmp_path / "photos" / "more" / "b.png", tmp_path / "photos" / "a.png"]
    for seed, file in enumerate(files):
        write_image(file, (8, 8, 1), seed=seed)
    (tmp_path / "photos" / ".hidden.png").write_text("hidden")
    (tmp_path / "photos" / "notes.txt").write_text("notes")
    arrays = np.stack([_IMAGES.read(file) for file in files[::-1]])
    outputs = model.serving_outputs(model.predict_on_batch(arrays))
    expected = keras.ops.convert_to_numpy(outputs["probabilities"])
    order = np.argsort(-expected, axis=1)
    main(["predict", str(tmp_path), str(tmp_path / "photos"), "--top", "2"])
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{file!s:{len(str(files[0]))}}  "
        + "  ".join(
            f"{_NAMES[i]}  {100 * expected[row, i]:.1f} %" for i in order[row, :2]
        )
        for row, file in enumerate(files[::-1])
    ]
    assert f"{tmp_path / 'photos'}: skipped 1 files of other formats" in err
    # One at a time, and in JSON.
    text = _predict(capsys, tmp_path, files[0], "--json", "--batch-size", "1")
    answer = json.loads(text)
    assert answer["example"] == str(files[0])
    assert answer["classes"] == _NAMES[order[1, 0]]
    np.testing.assert_allclose(answer["probabilities"], expected[1], atol=1e-5)
    np.testing.assert_allclose(answer["logits"], outputs["logits"][1], atol=1e-5)


def test_bad_files_are_errors_in_their_rows(tmp_path, capsys):
    _save(tmp_path, Image((8, 8, 1), num_bands=2), _IMAGES)
    files = [tmp_path / name for name in ("good.png", "color.png", "text.png", "a.txt")]
    write_image(files[0], (8, 8, 1))
    write_image(files[1], (8, 8, 3))
    files[2].write_text("text")
    files[3].write_text("text")
    words = ["predict", str(tmp_path / "model.keras"), *map(str, files)]
    with pytest.raises(SystemExit, match="^error: .* 3 of 4 invalid"):
        main(words)
    lines = capsys.readouterr().out.splitlines()
    assert " %" in lines[0]
    assert "error: " in lines[1]
    assert "Received: channels=3" in lines[1].replace(f"{files[1]}: ", "")
    assert "error: " in lines[2]
    endings = ", ".join(ImagePreprocessor.suffixes)
    assert lines[3].endswith(f"error: The file must end with {endings}.")


def test_arrays(tmp_path, capsys):
    model = _save(tmp_path, Image((8, 8, 1), num_bands=2), None)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "images.npz", image=images)
    logits = model.predict_on_batch(images)
    for name in ("images.npy", "images.npz"):
        text = _predict(
            capsys, tmp_path, tmp_path / name, "--json", "--batch-size", "2"
        )
        answers = [json.loads(line) for line in text.splitlines()]
        assert [a["example"] for a in answers] == [
            f"{tmp_path / name}[{i}]" for i in range(3)
        ]
        np.testing.assert_allclose([a["logits"] for a in answers], logits, atol=1e-5)
    write_image(tmp_path / "a.png", (8, 8, 1))
    with pytest.raises(SystemExit, match="A model without a preprocessor takes arrays"):
        main(["predict", str(tmp_path), str(tmp_path / "a.png")])


def test_modalities_are_joined_and_may_be_missing(tmp_path, capsys):
    modality = ByteArray(
        {
            "image": Image((8, 8, 1), num_bands=2),
            "audio": Audio(64, sample_rate=8_000, patch_size=16, use_mask=True),
        }
    )
    preprocessor = {
        "image": _IMAGES,
        "audio": AudioPreprocessor(8_000, num_samples=64, use_mask=True),
    }
    model = _save(tmp_path, modality, preprocessor)
    files = tmp_path / "files"
    for stem in ("both", "silent"):
        write_image(files / f"{stem}.png", (8, 8, 1))
    write_audio(files / "both.wav", num_samples=40)
    write_audio(files / "dark.wav", num_samples=40)
    with pytest.raises(SystemExit, match="1 of 3 invalid"):
        main(["predict", str(tmp_path), str(files), "--json"])
    answers = map(json.loads, capsys.readouterr().out.splitlines())
    answers = {answer.pop("example"): answer for answer in answers}
    assert answers["dark"] == {"error": "A file of 'image' is missing."}
    image = _IMAGES.read(files / "both.png")
    sound = np.zeros(64, "float32")
    sound[:40] = preprocessor["audio"].read(files / "both.wav")
    for stem, length in (("both", 40), ("silent", 0)):
        inputs = {
            "image": image[None],
            "audio": sound[None] * (np.arange(64) < length),
            "audio_mask": np.arange(64)[None] < length,
        }
        logits = model.predict_on_batch(inputs)[0]
        np.testing.assert_allclose(answers[stem]["logits"], logits, atol=1e-5)
