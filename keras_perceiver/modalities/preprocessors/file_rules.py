"""Rules about the content of files: one text of an error, on the host and in a graph."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class FileRule:
    """A rule about the content of a file, with the text of its error.

    Args:
        rule: String, the rule as a sentence.
        received: String, a format of what was received, with `{}` for each value.
        fix: String, what to do about it, without a full stop.
    """

    rule: str
    received: str
    fix: str

    def check(self, is_kept, *values):
        """Raises `FileRuleError` with these values unless the rule is kept."""
        if not is_kept:
            raise FileRuleError(self.rule, self.received.format(*values), self.fix)

    def error(self, is_kept, *values):
        """Returns the text of the error as a string scalar, `""` if the rule is kept.

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
    """The content of a file breaks a rule."""

    def __init__(self, rule, received, fix):
        super().__init__(f"{rule} Received: {received}. {fix}.")
        self.rule, self.received, self.fix = rule, received, fix


IS_FINITE = FileRule("Values must be finite.", "a NaN or infinite number", "Remove it")


def first_error(*errors):
    """Returns the first of string scalars that is not empty, in a graph."""
    import tensorflow as tf

    first = tf.constant("")
    for error in errors:
        first = tf.where(tf.equal(first, ""), error, first)
    return first


def bad_file(path, rule, received, fix="Repair or remove the file"):
    """Returns the `ValueError` of an invalid file."""
    return ValueError(
        f"{rule} Received: {received} in {path}. {fix}, or leave out bad files with "
        "`skip_bad_files=True`."
    )
