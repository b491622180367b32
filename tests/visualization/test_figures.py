"""Figures of every modality and of a model."""

import matplotlib
import numpy as np
import pytest
from mpl_toolkits.mplot3d import proj3d

from keras_perceiver import (
    Array,
    Audio,
    Image,
    InputQueries,
    MelSpectrogram,
    Perceiver,
    PerceiverClassifier,
    PerceiverDecoder,
    PerceiverSegmenter,
    PointCloud,
    SelfAttend,
    Sequence,
    Video,
    attention_maps,
    visualization,
)

matplotlib.use("agg")
SMALL = {
    "num_latents": 5,
    "latent_dim": 16,
    "num_blocks": 2,
    "num_self_attends_per_block": 1,
    "self_attend": SelfAttend(num_heads=2),
}

MODALITIES = {
    "image": Image((8, 6, 3), num_bands=2, patch_size=2),
    "video": Video((4, 8, 8, 1), num_bands=2, patch_size=(2, 4, 4)),
    "audio": Audio(80, sample_rate=80, patch_size=8, num_bands=2),
    "mel": MelSpectrogram(
        400, 400, num_mel_bins=8, frame_length=80, frame_step=40, num_bands=2
    ),
    "points": PointCloud(num_bands=2, use_mask=True),
    "text": Sequence(20, vocabulary_size=9, embedding_dim=4, num_bands=2),
    "volume": Array((3, 4, 4, 2), num_bands=2),
}


@pytest.fixture(scope="module")
def model_and_inputs():
    model = PerceiverClassifier(Perceiver(MODALITIES, **SMALL), num_classes=3)
    rng = np.random.default_rng(0)
    inputs = {name: m.random_inputs(rng, 2) for name, m in MODALITIES.items()}
    inputs["points_mask"] = np.ones(inputs["points"].shape[:2], bool)
    inputs["points_mask"][1, 3:] = False
    return model, inputs


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.one_backend
def test_attention_to_every_modality(model_and_inputs):
    model, inputs = model_and_inputs
    maps = attention_maps(model, inputs)
    for name in MODALITIES:
        figure = visualization.plot_attention(
            maps, cross_attends=[1], latents=[0, 4], example=1, modality=name
        )
        alone, *drawn = [axis for axis in figure.axes if axis.get_title()]
        assert alone.get_title() == "inputs"
        assert alone.has_data()
        assert len(drawn) == 2
        # Two of the five points are padding, which does not count.
        num_inputs = sum(np.prod(grid) for grid in maps.grids.values()) - 2
        weights = maps.weights(1, [0, 4])[name][1, 0] * num_inputs
        assert drawn[1].get_title() == f"latent 4: {weights[1].max():.1f}x"
        assert drawn[1].has_data()
        assert "cross-attend 2" in [text.get_text() for text in alone.texts]
        ticks = [label.get_text() for label in drawn[1].get_xticklabels()]
        if hasattr(MODALITIES[name], "duration"):
            assert ticks == ["0", "1 s"]
        # All maps of a row have the same scale, of colors or of heights.
        artists = [
            artist
            for axis in drawn
            for artist in [*axis.images[1:], *axis.collections]
            if artist.get_array() is not None
        ]
        scales = {artist.get_clim()[1] for artist in artists}
        scales = scales or {axis.get_ylim()[1] for axis in drawn}
        assert list(scales) == pytest.approx([weights.max()])
        for artist in artists:  # logarithmic above uniform attention
            expected = np.log(1 + np.sqrt(2)) / np.arcsinh(weights.max())
            assert artist.norm(1.0) == pytest.approx(expected)
        bars = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
        if not bars:  # the axis of the last curve
            bars = drawn[-1:]
            assert bars[0].yaxis.get_ticks_position() == "right"
        (bar,) = bars
        assert all(tick.get_text()[-1] == "x" for tick in bar.get_yticklabels())
        figure.canvas.draw()
    with pytest.raises(ValueError, match="`modality` must be one of"):
        visualization.plot_attention(maps)


@pytest.mark.one_backend
def test_attention_draws_all_cross_attends_and_at_most_six_latents():
    for num_latents, shown in ((5, 5), (8, 6)):
        settings = {**SMALL, "num_latents": num_latents}
        encoder = Perceiver(Image((8, 8, 1), num_bands=2), **settings)
        maps = attention_maps(encoder, np.zeros((1, 8, 8, 1), "float32"))
        assert maps.num_latents == num_latents
        figure = visualization.plot_attention(maps)
        titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
        assert titles.count("inputs") == len(maps) == 2
        assert sum(title.startswith("latent ") for title in titles) == 2 * shown


@pytest.mark.one_backend
def test_points_have_one_scale_along_all_axes():
    axis = matplotlib.pyplot.figure().add_subplot(projection="3d")
    rng = np.random.default_rng(0)
    PointCloud().draw(axis, None, rng.uniform(-1, 1, (400, 3)) * (1, 0.5, 0.25))
    axis.set_proj_type("ortho")
    units = np.concatenate([np.zeros((1, 3)), 0.1 * np.eye(3)])
    # From the front x goes to the right, from the side y; z goes up.
    for azimuth, right in ((-90, 1), (0, 2)):
        axis.view_init(elev=0, azim=azimuth)
        screen = np.stack(proj3d.proj_transform(*units.T, axis.get_proj())[:2], axis=-1)
        lengths = np.linalg.norm(screen[[right, 3]] - screen[0], axis=-1)
        assert lengths[0] == pytest.approx(lengths[1])


@pytest.mark.one_backend
def test_entropy_ignores_padding(model_and_inputs):
    maps = attention_maps(*model_and_inputs)
    for example, padding in enumerate((0, 2)):
        axis = visualization.plot_entropy(maps, example=example).axes[0]
        *lines, _, uniform = axis.get_lines()
        np.testing.assert_allclose(
            np.stack([line.get_ydata() for line in lines], axis=-1),
            maps.entropy()[:, example, 0],
        )
        num_inputs = sum(np.prod(grid) for grid in maps.grids.values()) - padding
        assert uniform.get_ydata() == pytest.approx([np.log(num_inputs)] * 2)
        assert axis.get_ylim()[1] > np.log(num_inputs)
        (legend,) = axis.figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            "one latent and head",
            "median",
            f"uniform attention to {num_inputs} inputs",
        ]


@pytest.mark.one_backend
def test_figures_in_the_style_of_notebooks(model_and_inputs):
    model, inputs = model_and_inputs
    with matplotlib.pyplot.style.context("keras_perceiver.visualization.notebook"):
        maps = attention_maps(model, inputs)
        for figure in (
            visualization.plot_attention(maps, modality="image"),
            visualization.plot_entropy(maps),
            visualization.plot_architecture(model, inputs),
        ):
            assert figure.dpi == 90
            figure.canvas.draw()  # without a warning, which is an error here


def _texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


@pytest.mark.one_backend
def test_architecture_draws_inputs_and_prediction(model_and_inputs):
    model, inputs = model_and_inputs
    figure = visualization.plot_architecture(model, inputs, example=1)
    figure.canvas.draw()
    texts = _texts(figure)
    assert "volume\nArray, 3 x 4 x 4 x 2" in texts
    assert "points\nPointCloud, any x 3" in texts
    assert "48 elements" in texts
    assert any(text.startswith("inputs\nany x ") for text in texts)
    # Pictures of all modalities, and bars of the most probable classes.
    *pictures, bars = figure.axes[1:]
    assert len(pictures) == len(MODALITIES)
    assert all(picture.has_data() for picture in pictures)
    probabilities = np.exp(model.predict(inputs, verbose=0)[1].astype("float64"))
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(
        probabilities[order], rel=1e-4
    )
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert names == [str(i) for i in order]


@pytest.mark.one_backend
def test_architecture_of_a_dense_task_has_no_answer():
    encoder = Perceiver(Image((3, 2, 1), num_bands=1), **SMALL)
    model = PerceiverSegmenter(encoder, 3, PerceiverDecoder(InputQueries()))
    inputs = np.zeros((1, 3, 2, 1), "float32")
    texts = _texts(visualization.plot_architecture(model, inputs))
    assert any("3 x 2 x 3 outputs" in text for text in texts)


def test_architecture_marks_shared_layers():
    encoder = Perceiver(
        Image((8, 8, 1), num_bands=2), **{**SMALL, "num_blocks": 4}, num_cross_attends=4
    )
    model = PerceiverClassifier(encoder, num_classes=7)
    figure = visualization.plot_architecture(model)
    texts = _texts(figure)
    assert "latents\n5 x 16" in texts
    assert "inputs\n64 x 11" in texts
    assert "image\nImage, 8 x 8 x 1" in texts
    assert "head\n7 outputs" in texts
    # The first cross-attend has its own weights. The others share theirs.
    assert texts.count("cross-attend\n1 head") == 2
    assert texts.count("1 self-attend\n2 heads") == 2
    assert "3 times" in texts
    colors = [box.get_facecolor() for box in figure.axes[0].patches]
    assert len(colors) == 1 + 1 + 4 + 1  # inputs, latents, layers, head
    assert colors[2] != colors[4]
    assert colors[3] == colors[5]
    (caption,) = [text for text in texts if "parameters" in text]
    assert f"{model.count_params():,} parameters. Boxes of one color" in caption
    assert figure.get_size_inches()[0] == 9
    figure.canvas.draw()


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "repeats", "sharing"),
    [
        ({"share_weights": False}, ["3 times"], "No two layers share weights."),
        ({"num_cross_attends": 1}, ["3 times"], "Layers that repeat share"),
        (
            {"num_cross_attends": 3, "use_cross_attends_at_start": True},
            ["2 times", "3 times"],
            "Layers that repeat share",
        ),
    ],
)
def test_architecture_draws_repeated_blocks_once(options, repeats, sharing):
    encoder = Perceiver(
        Image((8, 8, 1), num_bands=2), **{**SMALL, "num_blocks": 3}, **options
    )
    texts = _texts(visualization.plot_architecture(encoder))
    assert [text for text in texts if text.endswith(" times")] == repeats
    assert any(sharing in text for text in texts)
    assert not any("head\n" in text for text in texts)
