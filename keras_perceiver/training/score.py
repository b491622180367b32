"""The test of a run: loss and score, with all modalities and without each of them."""

import keras

from keras_perceiver.training.evaluate import has_clips, predictions


def score(model, dataset, distribution):
    """Returns the loss and the score of a compiled task, as a dict.

    Keras' evaluation cannot average the clips of an example, and a metric that is
    accumulated over batches may be approximate.

    Args:
        model: Compiled task.
        dataset: `tf.data.Dataset` of batches `(inputs, targets)`.
        distribution: `Distribution`.
    """
    is_exact = not any(
        getattr(metric, "is_approximate", False) for metric in model.default_metrics()
    )
    if is_exact and not has_clips(model, dataset.element_spec[0]):
        dataset = distribution.evaluation(dataset)
        return model.evaluate(dataset, return_dict=True, verbose=0)
    y_true, y_pred = predictions(model, dataset)
    return {
        "loss": float(keras.ops.convert_to_numpy(model.loss(y_true, y_pred))),
        model.score: model.report(y_true, y_pred).metrics()[model.score],
    }


def score_without_each(model, dataset, distribution):
    """Returns a dict of the score without each modality by modality name.

    It is empty if there is only one modality. Modalities without a mask are skipped.

    Args:
        model: Compiled task.
        dataset: `tf.data.Dataset` of batches `(inputs, targets)`.
        distribution: `Distribution`.
    """
    modalities = model.encoder.byte_array.modalities
    if len(modalities) == 1:
        return {}

    def without(mask_name):
        return dataset.map(
            lambda inputs, targets: (
                {**inputs, mask_name: inputs[mask_name] & False},
                targets,
            )
        )

    return {
        name: score(model, without(f"{name}_mask"), distribution)[model.score]
        for name, modality in modalities.items()
        if modality.use_mask
    }
