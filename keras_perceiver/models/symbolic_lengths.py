"""Dynamic lengths of inputs in programs that JAX exports."""


def jax2tf_arguments(model):
    """Returns arguments of `jax2tf.convert` for a model with dynamic lengths.

    By default, Keras gives an input and its mask two unrelated lengths, so that they
    cannot be combined.

    Args:
        model: `CheckedModel`.

    Returns:
        Dict, empty if no length is dynamic.
    """
    shapes, constraints = {}, []
    for name, modality in model.modalities.items():
        symbols = {}
        for axis, (multiple, limit) in modality.dynamic_lengths.items():
            symbol = symbols[axis] = f"length_{len(constraints)}_{axis}"
            constraints.append(f"mod({symbol}, {multiple}) == 0")
            if limit is not None:
                constraints.append(f"{symbol} <= {limit}")
        shapes[name] = _shape(modality.input_shape, symbols)
        if modality.use_mask:
            shapes[f"{name}_mask"] = _shape(modality.mask_shape, symbols)
    if not constraints:
        return {}
    shapes |= {name: f"(batch, num_{name})" for name in model.index_inputs}
    if len(shapes) == 1:
        (shapes,) = shapes.values()
    return {
        "polymorphic_shapes": [shapes],
        "polymorphic_constraints": constraints,
        # JAX cannot infer all lengths of gradients, and servers do not need them.
        "with_gradient": False,
    }


def _shape(sizes, symbols):
    sizes = ("batch", *(symbols.get(axis, n) for axis, n in enumerate(sizes)))
    return f"({', '.join(map(str, sizes))})"
