"""The head of a task as a separate model: from the result of the encoder to outputs."""

import keras

from keras_perceiver.models.tasks.base import Task


def head_of(task: Task) -> keras.Model:
    """Returns the head of a task, a functional model of the same layers.

    Its inputs are a dict. `"latents"` are those of the encoder. `"inputs"` and
    `"inputs_mask"` are there if the head uses them, and so are inputs of the task that
    the encoder does not have, such as `"indices"`.

    Args:
        task: `Task`.

    Raises:
        ValueError: if the outputs of the task do not depend on its encoder.
    """
    encoded = _result_of((task.encoder, task.encoder.view), task.output)
    if encoded is None:
        raise ValueError(
            "The outputs of a task must depend on its encoder. Received: "
            f"{type(task).__name__}, whose outputs do not. Call the encoder, or its "
            "`encode`, on `encoder.input`."
        )
    own = {x.name for x in task.encoder.inputs}
    others = {x.name: x for x in task.inputs if x.name not in own}
    if not isinstance(encoded, dict):
        encoded = {"latents": encoded}
    arguments = {**encoded, **others}
    # As new inputs, since those of a dict are named by its keys.
    inputs = {
        name: keras.Input(x.shape[1:], dtype=x.dtype, name=name)
        for name, x in arguments.items()
    }
    model = keras.Model(list(arguments.values()), task.output)
    return keras.Model(inputs, model(list(inputs.values())), name="head")


def _result_of(layers, output):
    """Returns what one of the layers returns in the graph of an output, or `None`."""
    tensors = keras.tree.flatten(output)
    while tensors:
        layer, index, _ = tensors.pop()._keras_history
        node = layer._inbound_nodes[index]
        if any(layer is each for each in layers):
            return keras.tree.pack_sequence_as(layer.output, node.outputs)
        tensors += node.input_tensors
    return None
