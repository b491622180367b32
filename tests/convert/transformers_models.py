"""Models of `transformers` with random weights: written, and asked for their answers.

    python -m tests.convert.transformers_models write FOLDER
    python -m tests.convert.transformers_models answer FOLDER IMAGES.npy LOGITS.npy

A program of its own, since PyTorch cannot be loaded after TensorFlow.
"""

import json
import sys
from pathlib import Path

import numpy as np

SIZES = {
    "num_latents": 6,
    "d_latents": 16,
    "num_blocks": 2,
    "num_self_attends_per_block": 3,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
    "num_labels": 5,
}
ARCHITECTURES = {
    "learned": ("PerceiverForImageClassificationLearned", {"image_size": 12}),
    "fourier": ("PerceiverForImageClassificationFourier", {}),
    "conv": ("PerceiverForImageClassificationConvProcessing", {}),
    "widths": (
        "PerceiverForImageClassificationFourier",
        {
            "qk_channels": 8,
            "v_channels": 16,
            "self_attention_widening_factor": 2,
            "cross_attention_widening_factor": 3,
            "use_query_residual": False,
            "hidden_act": "gelu_pytorch_tanh",
            "id2label": {i: name for i, name in enumerate(["crane", "b", "crane"])},
        },
    ),
    "square": (
        "PerceiverForImageClassificationFourier",
        {"cross_attention_shape_for_attention": "q"},
    ),
}
LARGER = (18, 15)
IMAGE_SIZES = {"learned": 12, "fourier": 20, "conv": 45, "widths": 20, "square": 20}


def write(folder):
    """Writes all models below a folder, with images and their logits."""
    import torch
    import transformers

    for name, (cls, settings) in ARCHITECTURES.items():
        torch.manual_seed(0)
        sizes = {**SIZES, **settings}
        if "id2label" in settings:
            del sizes["num_labels"]
        config = transformers.PerceiverConfig(**sizes)
        model = getattr(transformers, cls)(config)
        for parameter in model.parameters():
            # Zeros and ones would hide mistakes.
            torch.nn.init.normal_(parameter, 0.1, 0.3)
        for buffer_name, buffer in model.named_buffers():
            if "running" in buffer_name:
                torch.nn.init.uniform_(buffer, 0.5, 2.0)
        model.save_pretrained(folder / name)
        images = np.random.default_rng(0).normal(size=(2, *[IMAGE_SIZES[name]] * 2, 3))
        np.save(folder / name / "images.npy", images.astype("float32"))
        answer(
            folder / name, folder / name / "images.npy", folder / name / "logits.npy"
        )
    # Images of another size than that of the learned positions.
    folder = folder / "learned"
    images = np.random.default_rng(0).normal(size=(2, *LARGER, 3)).astype("float32")
    np.save(folder / "larger.npy", images)
    answer(
        folder,
        folder / "larger.npy",
        folder / "larger_logits.npy",
        interpolate_pos_encoding=True,
    )


def answer(folder, images, logits, **options):
    """Writes the logits of the model in a folder for some images."""
    import torch
    import transformers

    config = json.loads((folder / "config.json").read_text())
    cls = getattr(transformers, config["architectures"][0])
    model, loading = cls.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.get(key) for key in ("missing_keys", "unexpected_keys"))
    images = torch.tensor(np.load(images)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        np.save(logits, model.eval()(inputs=images, **options).logits.numpy())


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    {"write": write, "answer": answer}[command](*map(Path, paths))
