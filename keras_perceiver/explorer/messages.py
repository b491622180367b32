"""Errors of the package as messages for users of the page, who have no code."""

from __future__ import annotations

import re

from keras_perceiver.modalities.preprocessors.file_rules import FileRuleError

# Fixes with one of these are for who creates the model or its data.
_FOR_CODE = re.compile(r"`|\bmodality\b|\bremove (it|the file)\b", re.IGNORECASE)
_SENTENCES = re.compile(r"(?<=[.!?]) (?=[A-Z])")


def message_of(error: Exception, fix: str) -> str:
    """Returns the message of an error, with fixes that a user of the page can apply.

    Args:
        error: Exception with a message of the rule, what was received, and the fix.
        fix: String, the sentence that replaces fixes for who writes code.
    """
    text = " ".join(str(error).split())
    if isinstance(error, ImportError):  # whose fix is for who has started the page
        return text
    if isinstance(error, FileRuleError):
        rule, received, fixes = error.rule, error.received, error.fix
    else:
        rule, mark, rest = text.partition(" Received: ")
        if not mark:
            return text
        received, *others = _SENTENCES.split(rest)
        fixes = " ".join(others)
    kept = [
        f"{sentence.rstrip('.')}."
        for sentence in _SENTENCES.split(fixes)
        if sentence and not _FOR_CODE.search(sentence)
    ]
    return f"{rule} Received: {received.rstrip('.')}. {' '.join(kept) or fix}"
