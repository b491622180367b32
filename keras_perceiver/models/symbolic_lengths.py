"""The dynamic lengths of inputs in a program that JAX exports."""


def jax2tf_arguments(modalities):
    """Returns arguments of `jax2tf.convert` for a model with dynamic lengths.

    Keras would give an input and its mask two lengths that have nothing to do with each
    other, which cannot be combined.

    Args:
        modalities: Dict of modality layers by name.

    Returns:
        Dict, empty where no length is dynamic.
    """
    shapes, constraints = {}, []
    for name, modality in modalities.items():
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
    if len(shapes) == 1:
        (shapes,) = shapes.values()
    return {
        "polymorphic_shapes": [shapes],
        "polymorphic_constraints": constraints,
        # Of which JAX cannot tell all lengths, and a server has no use.
        "with_gradient": False,
    }


def _shape(sizes, symbols):
    sizes = ("batch", *(symbols.get(axis, n) for axis, n in enumerate(sizes)))
    return f"({', '.join(map(str, sizes))})"
