"""Smoke tests: training a recipe offline on a few small batches."""

BATCH_SIZE = 2  # examples per micro-batch and device
NUM_STEPS = 3


def smaller(recipe, num_replicas):
    """Returns a recipe with one epoch and small batches, unless they were overridden.

    Args:
        recipe: `Recipe`.
        num_replicas: Integer, devices that share a batch.
    """
    num_parts = recipe.accumulation_steps * num_replicas
    sizes = {"epochs": 1, "batch_size": BATCH_SIZE * num_parts}
    return recipe.replace({k: v for k, v in sizes.items() if k not in recipe.overrides})


def first_steps(splits, num_steps):
    """Returns splits with `num_steps` training batches, and one batch of the others."""
    return splits._replace(
        train=splits.train.take(num_steps),
        validation=splits.validation.take(1),
        test=splits.test.take(1),
        epoch=lambda number, num_done=0: (
            splits.epoch(number).take(num_steps).skip(num_done)
        ),
    )
