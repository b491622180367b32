"""The mistakes of docs/troubleshooting.md: each gives the message that the page has.

The docstring of a mistake is the first column of its row. The message is that of the
other two columns, which are the rule with what was received, and the fix. Of messages of
Keras, which have no fix, the second column is a part.
"""

import html
import subprocess
import sys
import warnings
import wave
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_perceiver as kp
from keras_perceiver.data import read_folder
from tests.documents import ROOT
from tests.models.small import SMALL

pytestmark = pytest.mark.one_backend

MISTAKES = {}
SUBPROCESSES = ("load_without_import",)
PACKAGE = Path(kp.__file__).parent
PAGE = ROOT / "docs" / "troubleshooting.md"
RNG = np.random.default_rng(0)


def mistake(function):
    MISTAKES[function.__doc__] = function
    return function


def model_of(modality=None, cls=kp.PerceiverClassifier, **settings):
    if modality is None:
        modality = kp.Image((8, 8, 1), num_bands=2)
    model = cls(kp.Perceiver(modality, **SMALL), num_classes=3, **settings)
    model.compile("adam")
    return model


def predictor_of(cls):
    image = kp.Image((8, 8, 1), num_bands=2)
    size = 1 if cls is kp.PerceiverDensePredictor else 2
    decoder = kp.PerceiverDecoder(kp.InputQueries())
    model = cls(kp.Perceiver(image, **SMALL), size, decoder)
    model.compile("adam")
    return model


def values(*shape):
    return RNG.uniform(-1, 1, (4, *shape)).astype("float32")


def fit(model, inputs=None, labels=None):
    inputs = values(8, 8, 1) if inputs is None else inputs
    labels = np.array([0, 1, 2, 0]) if labels is None else labels
    model.fit(inputs, labels, verbose=0)


def write_images(folder, *names, channels=1):
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(path, np.zeros((8, 8, channels)), scale=False)


def read_images(folder="photos"):
    return read_folder(folder, kp.ImagePreprocessor((8, 8, 1)), batch_size=2)


@mistake
def backend_after_import(monkeypatch):
    """`os.environ["KERAS_BACKEND"] = "jax"` after an import of Keras"""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    model_of()


@mistake
def missing_extra(monkeypatch):
    """reading a FLAC file without the extra `audio`"""
    monkeypatch.setitem(sys.modules, "soundfile", None)  # as if not installed
    Path("sounds", "bark").mkdir(parents=True)
    Path("sounds", "bark", "0.flac").write_bytes(b"fLaC")
    read_folder("sounds", kp.AudioPreprocessor(8000, 100), batch_size=1)


@mistake
def misspelled_preset():
    """`from_preset("digit")`"""
    kp.PerceiverClassifier.from_preset("digit")


@mistake
def misspelled_argument():
    """`Perceiver(image, num_latent=16)`"""
    kp.Perceiver(kp.Image((8, 8, 1)), num_latent=16)


@mistake
def misspelled_override():
    """`from_preset("digits", num_latent=16)`"""
    kp.PerceiverClassifier.from_preset("digits", num_latent=16)


@mistake
def misspelled_classes():
    """`from_preset("digits", num_class=3)`"""
    kp.PerceiverClassifier.from_preset("digits", num_class=3)


@mistake
def no_encoder():
    """`PerceiverClassifier(kp.Image((8, 8, 1)), 3)`"""
    kp.PerceiverClassifier(kp.Image((8, 8, 1), name="image"), 3)


@mistake
def heads():
    """`Perceiver(image, latent_dim=100)` with the default of 8 heads"""
    kp.Perceiver(kp.Image((8, 8, 1)), latent_dim=100)


@mistake
def not_compiled():
    """`fit` without `compile`"""
    fit(kp.PerceiverClassifier(kp.Perceiver(kp.Image((8, 8, 1)), **SMALL), 3))


@mistake
def unscaled():
    """pixels from 0 to 255"""
    fit(model_of(), 255 * np.eye(8, dtype="uint8")[None, ..., None].repeat(4, 0))


@mistake
def not_finite():
    """a NaN in the inputs"""
    inputs = values(8, 8, 1)
    inputs[2, 3, 4] = np.nan
    fit(model_of(), inputs)


@mistake
def other_size():
    """images of another size than the model's"""
    fit(model_of(), values(10, 10, 1))


@mistake
def channels_first():
    """channels before height and width"""
    fit(model_of(kp.Image((8, 8, 3), num_bands=2)), values(3, 8, 8))


@mistake
def no_channels():
    """gray images without an axis of channels"""
    fit(model_of(), values(8, 8))


@mistake
def gray():
    """gray images for a model of color images"""
    fit(model_of(kp.Image((8, 8, 3), num_bands=2)), values(8, 8, 1))


@mistake
def no_batch():
    """`predict` of a single image, or a `tf.data.Dataset` without `batch`"""
    model_of().predict(values(8, 8, 1)[0], verbose=0)


@mistake
def list_of_arrays():
    """a list of sequences of different lengths"""
    modality = kp.Array((None, 3), num_bands=2, max_resolution=9)
    fit(model_of(modality), [np.zeros((n, 3)) for n in (5, 9, 9, 7)])


@mistake
def no_mask():
    """a modality with `use_mask=True`, but no mask"""
    modality = kp.Array((9, 3), num_bands=2, use_mask=True)
    fit(model_of(modality), values(9, 3))


@mistake
def wrong_key():
    """a dict of inputs with another name than the modality's"""
    modalities = {
        "image": kp.Image((8, 8, 1), num_bands=2),
        "sound": kp.Audio(80, sample_rate=8000, patch_size=8, num_bands=2),
    }
    fit(model_of(modalities), {"image": values(8, 8, 1), "audio": values(80)})


@mistake
def number_of_points():
    """point clouds with another number of points"""
    fit(model_of(kp.PointCloud(16, num_bands=2)), values(20, 3))


@mistake
def stereo():
    """sound with two channels"""
    modality = kp.Audio(80, sample_rate=8000, patch_size=8, num_bands=2)
    fit(model_of(modality), values(80, 2))


@mistake
def unknown_ids():
    """ids beyond the vocabulary"""
    fit(model_of(kp.Sequence(5, 100, 4, num_bands=2)), np.full((4, 5), 100))


@mistake
def from_logits():
    """`compile(loss="sparse_categorical_crossentropy")`"""
    model_of().compile("adam", loss="sparse_categorical_crossentropy")


@mistake
def no_targets():
    """`fit` without labels"""
    model_of().fit(values(8, 8, 1), verbose=0)


@mistake
def labels_from_one():
    """labels 1, 2, 3 for three classes"""
    fit(model_of(), labels=np.array([1, 2, 3, 1]))


@mistake
def too_few_classes():
    """labels up to 9 for three classes"""
    fit(model_of(), labels=np.array([0, 9, 2, 1]))


@mistake
def names_as_labels():
    """names of classes as labels"""
    fit(model_of(), labels=np.array(["cat", "dog", "cat", "dog"]))


@mistake
def one_hot():
    """one-hot labels with a sparse loss"""
    model = model_of()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fit(model, labels=np.eye(3)[[0, 1, 2, 0]])


@mistake
def several_labels():
    """several labels per example for a classifier of one"""
    fit(model_of(), labels=np.array([[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]]))


@mistake
def list_of_labels():
    """a list of labels"""
    fit(model_of(), labels=[0, 1, 2, 0])


@mistake
def indices_for_one_hot():
    """class indices with a loss that takes one-hot labels"""
    model = model_of()
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    fit(model)


@mistake
def indices_for_many():
    """class indices for a multi-label classifier"""
    fit(model_of(cls=kp.PerceiverMultiLabelClassifier))


@mistake
def class_names():
    """two `class_names` for three classes"""
    model_of(class_names=["cat", "dog"])


@mistake
def by_half():
    """`compile(metrics=[keras.metrics.Precision()])`"""
    model_of().compile("adam", metrics=[keras.metrics.Precision()])


@mistake
def weights_of_names():
    """`class_weight` by the names of classes"""
    model_of().fit(values(8, 8, 1), np.zeros(4), class_weight={"cat": 2.0})


@mistake
def no_channel_of_targets():
    """a depth map per image without an axis of channels"""
    predictor_of(kp.PerceiverDensePredictor).fit(values(8, 8, 1), values(8, 8))


@mistake
def smaller_masks():
    """masks of another size than the segmenter's outputs"""
    fit(predictor_of(kp.PerceiverSegmenter), labels=np.zeros((4, 4, 4), int))


@mistake
def weights_of_pixels():
    """`class_weight` for a segmenter"""
    model = predictor_of(kp.PerceiverSegmenter)
    model.fit(values(8, 8, 1), np.zeros((4, 8, 8), int), class_weight={0: 0.1})


@mistake
def other_preset():
    """`PerceiverSegmenter.from_preset("digits")`"""
    kp.PerceiverSegmenter.from_preset("digits")


@mistake
def one_level_too_high():
    """a folder that contains `train` and `test`"""
    write_images("photos", "test/cat/0.png", "train/cat/0.png")
    read_images()


@mistake
def no_class_folders():
    """a folder of images without a folder per class"""
    write_images("photos", "0.png", "1.png")
    read_images()


@mistake
def empty_folder():
    """an empty folder"""
    Path("photos").mkdir()
    read_images()


@mistake
def no_folder():
    """a folder that does not exist"""
    read_images("fotos")


@mistake
def no_image():
    """a file that is not an image"""
    write_images("photos", "cat/0.png", "dog/0.png")
    Path("photos", "cat", "1.png").write_text("not an image")
    read_images()


@mistake
def colors():
    """color images for a model of gray ones"""
    write_images("photos", "cat/0.png", "dog/0.png", channels=3)
    read_images()


@mistake
def sample_rate():
    """sound of another sample rate"""
    Path("sounds", "bark").mkdir(parents=True)
    with wave.open("sounds/bark/0.wav", "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(bytes(200))
    read_folder("sounds", kp.AudioPreprocessor(8000, 100), batch_size=1)


@mistake
def load_without_import():
    """`keras.saving.load_model` without `import keras_perceiver`"""
    model_of().save("model.keras")
    code = "import keras; keras.saving.load_model('model.keras')"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    raise TypeError(result.stderr)


@mistake
def save_as_h5():
    """`model.save("model.h5")`"""
    model_of().save("model.h5")


def rows():
    """Returns the cells of all rows of the page."""
    return [
        tuple(html.unescape(cell.strip()) for cell in line.split("|"))
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ") and not line.startswith(("| ---", "| You "))
    ]


ROWS = {did: (sees, fix) for _, did, sees, fix, _ in rows()}


def test_the_page_has_every_mistake():
    assert list(ROWS) == list(MISTAKES)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
@pytest.mark.parametrize(
    "did",
    [
        pytest.param(
            did,
            id=function.__name__,
            marks=[pytest.mark.slow] * (function.__name__ in SUBPROCESSES),
        )
        for did, function in MISTAKES.items()
    ],
)
def test_each_mistake_gives_its_message(did, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message, is_ours = message_of(MISTAKES[did], monkeypatch)
    sees, fix = ROWS[did]
    if is_ours:
        assert message == f"{sees} {fix}"
    else:
        assert sees in message


def message_of(function, monkeypatch):
    """Returns the message of the error or warning of a mistake, and whose it is."""
    wants_patch = "monkeypatch" in function.__code__.co_varnames
    arguments = (monkeypatch,) if wants_patch else ()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", UserWarning)
        try:
            function(*arguments)
        except (ValueError, TypeError, ImportError, OSError) as error:
            text = str(error)
            last = error.__traceback__
            while last.tb_next:
                last = last.tb_next
            return text, Path(last.tb_frame.f_code.co_filename).is_relative_to(PACKAGE)
    (warning,) = (w for w in found if "shuffle=True" not in str(w.message))
    return str(warning.message), True
