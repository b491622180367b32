"""Figures of every modality and of a model."""

import matplotlib
import numpy as np
import pytest

from keras_perceiver import (
    Array,
    Audio,
    Image,
    MelSpectrogram,
    Perceiver,
    PerceiverClassifier,
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


@pytest.mark.one_backend
def test_figures_of_every_modality():
    model = PerceiverClassifier(Perceiver(MODALITIES, **SMALL), num_classes=3)
    rng = np.random.default_rng(0)
    inputs = {name: m.random_inputs(rng, 2) for name, m in MODALITIES.items()}
    inputs["points_mask"] = np.ones(inputs["points"].shape[:2], bool)
    inputs["points_mask"][1, 3:] = False
    maps = attention_maps(model, inputs)
    for name in MODALITIES:
        figure = visualization.plot_attention(
            maps, cross_attends=[1], latents=[0, 4], example=1, modality=name
        )
        drawn = [axis for axis in figure.axes if axis.get_title().startswith("latent")]
        assert len(drawn) == 2
        weight = maps.weights(1, [4])[name][1, 0, 0].max()
        num_inputs = sum(np.prod(grid) for grid in maps.grids.values())
        assert drawn[1].get_title() == f"latent 4: {weight * num_inputs:.1f}x"
        assert drawn[1].has_data()
        assert "cross-attend 2" in [text.get_text() for text in drawn[0].texts]
        ticks = [label.get_text() for label in drawn[1].get_xticklabels()]
        assert ticks == (["0", "1 s"] if hasattr(MODALITIES[name], "duration") else [])
        figure.canvas.draw()
    with pytest.raises(ValueError, match="`modality` must be one of"):
        visualization.plot_attention(maps)

    lines = visualization.plot_entropy(maps, example=1).axes[0].get_lines()
    np.testing.assert_allclose(
        np.stack([line.get_ydata() for line in lines[:5]], axis=-1),
        maps.entropy()[:, 1, 0],
    )
    matplotlib.pyplot.close("all")


@pytest.mark.one_backend
def test_architecture_tells_what_is_shared():
    encoder = Perceiver(
        Image((8, 8, 1), num_bands=2), **{**SMALL, "num_blocks": 3}, num_cross_attends=3
    )
    model = PerceiverClassifier(encoder, num_classes=7)
    figure = visualization.plot_architecture(model)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0] == "latent array\n5 x 16"
    # The first cross-attend has its own weights, the others share theirs.
    reads = [text for text in texts if text.startswith("cross-attend")]
    assert [text[-1] for text in reads] == ["1", "2", "2"]
    transformers = [text for text in texts if "self-attend" in text]
    assert transformers == ["1 self-attend\n2 heads\nweights 3"] * 3
    assert "mean, linear\n7 classes" in texts
    assert any("64 x 11" in text for text in texts)
    assert f"{model.count_params():,}" in figure.axes[0].get_title()
    figure.canvas.draw()
    matplotlib.pyplot.close("all")
