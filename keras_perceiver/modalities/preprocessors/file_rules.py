"""Rules about the content of files, with the same errors on the host and in a graph."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class FileRule:
    """A rule about the content of a file, with its error message.

    Args:
        rule: String, the rule as a sentence.
        received: String, format of what was received, with `{}` for each value.
        fix: String, how to fix it, without a period.
    """

    rule: str
    received: str
    fix: str

    def check(self, is_kept, *values):
        """Raises `FileRuleError` with these values unless the rule is met."""
        if not is_kept:
            raise FileRuleError(self.rule, self.received.format(*values), self.fix)

    def error(self, is_kept, *values):
        """Returns the error message as a string scalar, `""` if the rule is met.

        Args:
            is_kept: Boolean scalar tensor.
            *values: Tensors.
        """
        import tensorflow as tf

        text = f"{self.rule} Received: {self.received}. {self.fix}."
        return tf.cond(
            tf.convert_to_tensor(is_kept),
            lambda: tf.constant(""),
            lambda: tf.strings.format(text, values) if values else tf.constant(text),
        )


class FileRuleError(ValueError):
    """Raised when the content of a file violates a rule."""

    def __init__(self, rule, received, fix):
        super().__init__(f"{rule} Received: {received}. {fix}.")
        self.rule, self.received, self.fix = rule, received, fix


IS_FINITE = FileRule("Values must be finite.", "a NaN or infinite number", "Remove it")


def first_error(*errors):
    """Returns the first non-empty string scalar in a graph."""
    import tensorflow as tf

    first = tf.constant("")
    for error in errors:
        first = tf.where(tf.equal(first, ""), error, first)
    return first


def bad_file(path, rule, received, fix="Repair or remove the file"):
    """Returns the `ValueError` of an invalid file."""
    return ValueError(
        f"{rule} Received: {received} in {path}. {fix}, or skip bad files with "
        "`skip_bad_files=True`."
    )
