"""Layout of the weights over devices that share one model."""

# Axes of the weights by their paths, as `keras.distribution.LayoutMap` takes them. The
# width over all heads and the hidden width are split. The projections back to the
# latents are split along their input axis, so that a block sums over devices only
# twice. Everything else is replicated: latents, norms, positions, the head.
LAYOUTS = {
    r".*/(query|key|value|mlp_hidden)/kernel": (None, "model"),
    r".*/(query|key|value|mlp_hidden)/bias": ("model",),
    r".*/(output_projection|mlp_output)/kernel": ("model", None),
}
