"""`model.export(format="onnx")`, which differs on PyTorch."""

import keras
import numpy as np
import pytest

from keras_perceiver import (
    Image,
    Perceiver,
    PerceiverClassifier,
    PointCloud,
    SelfAttend,
)

MODALITIES = {
    "image": Image((8, 8, 1), num_bands=4),
    "points": PointCloud(num_bands=4, use_mask=True),
}

# `tests/serving` covers the other backends.
if keras.backend.backend() == "torch":

    @pytest.mark.filterwarnings("ignore")  # of the exporter itself
    @pytest.mark.parametrize("name", MODALITIES)
    def test_onnx_has_dynamic_sizes(name, tmp_path):
        import onnxruntime

        modality = MODALITIES[name]
        encoder = Perceiver(
            modality,
            num_latents=8,
            latent_dim=16,
            num_blocks=2,
            num_self_attends_per_block=1,
            self_attend=SelfAttend(num_heads=2),
        )
        model = PerceiverClassifier(encoder, num_classes=3)
        rng = np.random.default_rng(0)

        def inputs(batch, num_points):
            if name == "image":
                return {"image": rng.random((batch, 8, 8, 1), "float32")}
            points = rng.random((batch, num_points, 3), "float32")
            mask = rng.random((batch, num_points)) > 0.3
            points[~mask] = np.nan
            return {"points": points, "points_mask": mask}

        def predict(inputs):
            arrays = inputs if len(inputs) > 1 else next(iter(inputs.values()))
            return model.predict(arrays, verbose=0)

        predict(inputs(2, 5))
        model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        for batch, num_points in ((2, 5), (1, 1), (3, 9)):
            x = inputs(batch, num_points)
            (logits,) = session.run(None, x)
            np.testing.assert_allclose(logits, predict(x), atol=1e-5)
