"""The peers of benchmark.py: the same model from Keras' layers, and other packages."""

import numpy as np


def image_example():
    """Returns a random image of 224 x 224 pixels and its label, as batches of one."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(1, 224, 224, 3)).astype("float32"), np.array([7])


def keras_layers_model(num_cross_attends=None, num_blocks=8, **settings):
    """Returns the same classifier, written with Keras' own layers."""
    import keras

    import keras_perceiver as kp

    num_latents = settings.get("num_latents", 512)
    latent_dim = settings.get("latent_dim", 1024)
    layers = keras.layers

    def block(num_heads, key_dim, width):
        return {
            "query_norm": layers.LayerNormalization(epsilon=1e-5),
            "inputs_norm": layers.LayerNormalization(epsilon=1e-5),
            "attention": layers.MultiHeadAttention(
                num_heads, key_dim, output_shape=width
            ),
            "mlp": [
                layers.LayerNormalization(epsilon=1e-5),
                layers.Dense(width, activation="gelu"),
                layers.Dense(width),
            ],
        }

    def run(block, query, inputs=None):
        normed = block["query_norm"](query)
        inputs = normed if inputs is None else block["inputs_norm"](inputs)
        query = query + block["attention"](normed, inputs)
        outputs = query
        for layer in block["mlp"]:
            outputs = layer(outputs)
        return query + outputs

    image = kp.Image((224, 224, 3), num_bands=64)
    pixels = keras.Input((224, 224, 3))
    inputs = image(pixels)
    latents = kp.LatentArray(num_latents, latent_dim)(inputs)
    cross_attends = [block(1, inputs.shape[-1], latent_dim) for _ in range(2)]
    self_attends = [block(8, latent_dim // 8, latent_dim) for _ in range(6)]
    for i in range(num_blocks):
        if num_cross_attends is None or i < num_cross_attends:
            latents = run(cross_attends[min(i, 1)], latents, inputs)
        for self_attend in self_attends:
            latents = run(self_attend, latents)
    logits = layers.Dense(1000, dtype="float32")(keras.ops.mean(latents, axis=1))
    return keras.Model(pixels, logits)


def torch_step(task):
    """Returns a callable for a forward pass or training step of another package."""
    import torch

    torch.manual_seed(0)
    x, y = map(torch.tensor, image_example())
    if task["layers"] == "transformers":
        model, forward = _transformers(x)
    else:
        model, forward = _perceiver_pytorch(task, x)
    if task["mode"] == "forward":
        model.eval()

        def call():
            with torch.inference_mode():
                forward().numpy()

        return call
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(forward(), y).backward()
        optimizer.step()

    return step


def _transformers(x):
    """Returns Hugging Face's Perceiver IO in the paper's sizes: 8 x 6, one cross-attend."""
    from transformers import (
        PerceiverConfig,
        PerceiverForImageClassificationFourier,
    )

    config = PerceiverConfig(
        num_latents=512,
        d_latents=1024,
        num_blocks=8,
        num_self_attends_per_block=6,
        num_self_attention_heads=8,
        num_cross_attention_heads=1,
        attention_probs_dropout_prob=0.0,
        num_labels=1000,
        image_size=224,
    )
    model = PerceiverForImageClassificationFourier(config)
    x = x.permute(0, 3, 1, 2)
    return model, lambda: model(inputs=x).logits


def _perceiver_pytorch(task, x):
    from perceiver_pytorch import Perceiver

    model = Perceiver(
        num_freq_bands=64,
        depth=8,
        max_freq=224.0,
        input_channels=3,
        num_latents=512,
        latent_dim=1024,
        cross_heads=1,
        latent_heads=8,
        cross_dim_head=261,
        latent_dim_head=128,
        num_classes=1000,
        weight_tie_layers=True,
        self_per_cross_attn=6,
    )
    return model, lambda: model(x)
