"""Failures of trials that do not end the search."""

import contextlib

from keras_tuner.errors import FailedTrialError


@contextlib.contextmanager
def fails_without_memory():
    """Context in which running out of memory fails the trial instead of the search."""
    try:
        yield
    except Exception as error:
        names = {kind.__name__ for kind in type(error).__mro__}
        text = str(error)
        if (
            names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}
            or "RESOURCE_EXHAUSTED" in text
            or "out of memory" in text.lower()
        ):
            raise FailedTrialError(
                f"The trial ran out of memory: {text[:500]} Set `max_activation_bytes` or "
                "smaller batches."
            ) from error
        raise
