"""How the weights of the layers are split over the devices that share one model."""

# Axes of the weights by their paths, as `keras.distribution.LayoutMap` takes them. Split
# are the width over all heads and the hidden width. The projections back to the latents
# are split on their input side, so that a block sums over devices only at its two ends.
# All else is replicated: latents, norms, positions, the head.
LAYOUTS = {
    r".*/(query|key|value|mlp_hidden)/kernel": (None, "model"),
    r".*/(query|key|value|mlp_hidden)/bias": ("model",),
    r".*/(output_projection|mlp_output)/kernel": ("model", None),
}
