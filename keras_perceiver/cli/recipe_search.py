"""The search around the model of a recipe."""

from keras_perceiver import Distribution, PerceiverHyperModel, tuning
from keras_perceiver.cli import console


class RecipeSearch:
    """A search in this process, or trials for the chief that this process works for."""

    def __init__(self, recipe, space, folder, options):
        self.recipe, self.folder, self.options = recipe, folder, options
        self.hyper_model = _hyper_model(recipe, space, options)

    def data(self, batch_size, seed):
        return self.recipe.splits(batch_size, seed, self.options.data)

    def tuner(self, report=console.say):
        options = self.options
        limits = options.trials, options.total_epochs, options.minutes
        # Without a limit, no trial is added.
        budget = tuning.Budget(*limits) if any(limits) else tuning.Budget(trials=1)
        return tuning.make_tuner(
            self.hyper_model,
            self.folder / "search",
            budget,
            options.algorithm,
            options.epochs,
            options.seed,
            report=report,
        )

    def run(self, report, **more):
        tuner = self.tuner(report)
        return tuning.search(tuner, self.data, self.options.epochs, **more)


def _hyper_model(recipe, space, options):
    """Returns a hypermodel around the recipe's model, with its optimizer."""
    distribution = Distribution(options.distribution, options.devices)
    splits = recipe.splits(1, options.seed, options.data)
    num_examples = int(splits.train.cardinality())
    model = recipe.build_task(recipe.model(), splits)
    modalities = model.encoder.byte_array.modalities.values()
    num_inputs = None
    if None in [modality.num_inputs for modality in modalities]:
        # For inputs of any length, that of one example, to count FLOPs.
        inputs, _ = next(splits.test.as_numpy_iterator())
        num_inputs = model.encoder.byte_array(inputs)[0].shape[1]
    optimizer = recipe.optimizer().get_config()
    sizes = {max(recipe.batch_size // 2, 1), recipe.batch_size, recipe.batch_size * 2}
    limits = {
        "max_parameters": options.max_parameters,
        "max_flops": options.max_gflops and options.max_gflops * 1e9,
        "max_activation_bytes": options.max_activation_gib
        and options.max_activation_gib * 2**30,
    }
    return PerceiverHyperModel.around(
        model,
        space={"batch_size": sorted(sizes), **space},
        defaults={
            "learning_rate": optimizer["learning_rate"],
            "weight_decay": optimizer.get("weight_decay") or 1e-3,
            "label_smoothing": recipe.label_smoothing,
            "batch_size": recipe.batch_size,
            "optimizer": "lamb" if "Lamb" in str(optimizer.get("name")) else "adamw",
        },
        num_inputs=num_inputs,
        num_examples=num_examples if num_examples > 0 else None,
        precision=options.precision,
        distribution=distribution,
        seed=options.seed,
        **limits,
    )
