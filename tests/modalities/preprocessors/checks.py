"""Contract of preprocessors. One call checks a class."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

_GRAPH_FORMS = {}


def check_preprocessor(preprocessor, tmp_path, max_length=None):
    """Checks a preprocessor: config, random files, and its graph form if it has one.

    Args:
        preprocessor: `Preprocessor`.
        tmp_path: Folder for the files of the test.
        max_length: Integer, maximum length of random files of any length.
    """
    config = keras.saving.serialize_keras_object(preprocessor)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert type(again) is type(preprocessor)
    assert again.get_config() == preprocessor.get_config()
    assert again.shape == preprocessor.shape

    rng = np.random.default_rng(0)
    contents = []
    for number in range(12):
        path = preprocessor.write_random(tmp_path / str(number), rng, max_length)
        assert path.suffix in preprocessor.suffixes
        inputs = preprocessor.read(path)
        assert inputs.dtype == preprocessor.dtype
        assert inputs.shape[1:] == preprocessor.shape[1:]
        length = preprocessor.shape[0] or max_length
        assert 0 < len(inputs) <= length
        if not preprocessor.use_mask:
            assert len(inputs) == length
        if preprocessor.value_range is not None:
            low, high = preprocessor.value_range
            assert low <= inputs.min()
            assert inputs.max() <= high
        np.testing.assert_array_equal(again.read(path), inputs)
        contents.append(path.read_bytes())
    assert len(set(contents)) == len(contents)
    if preprocessor.has_graph_form:
        check_graph_form(preprocessor, contents)
    else:
        with pytest.raises(NotImplementedError, match="in a graph"):
            preprocessor.decode_in_graph(contents[0])


def check_graph_form(preprocessor, contents):
    """Checks that both forms return the same raw inputs for valid files."""
    in_graph = graph_form(preprocessor)
    for content in contents:
        inputs, error = in_graph(content)
        assert error.numpy() == b""
        expected = preprocessor.read_content(content)
        # Equal up to the rounding of compiled operations.
        np.testing.assert_allclose(inputs, expected, rtol=1e-6, atol=1e-6)


def check_rule(preprocessor, content, message):
    """Checks that both forms reject a file for the same reason."""
    with pytest.raises(ValueError, match=message):
        preprocessor.read_content(content)
    _, error = graph_form(preprocessor)(content)
    assert re.search(message, error.numpy().decode()), error.numpy()


def graph_form(preprocessor):
    """Returns the graph form as a function of the bytes of a file, traced once."""
    if repr(preprocessor) not in _GRAPH_FORMS:
        _GRAPH_FORMS[repr(preprocessor)] = tf.function(
            preprocessor.read_content_in_graph,
            input_signature=[tf.TensorSpec((), "string")],
        )
    return _GRAPH_FORMS[repr(preprocessor)]


def check_bad_files(files, tmp_path, subtests):
    """Checks that errors name the file, the rule and the fix.

    Args:
        files: List of tuples `(preprocessor, name, write, message)`.
        tmp_path: Folder for the files of the test.
        subtests: The fixture of pytest.
    """
    for number, (preprocessor, name, write, message) in enumerate(files):
        path = tmp_path / str(number) / name
        write(path)
        with subtests.test(name=name, message=message):
            with pytest.raises(ValueError, match=message) as error:
                preprocessor.read(path)
            text = str(error.value)
            assert f" in {path}. " in text
            assert re.search("Received: .*skip_bad_files=True", text, re.DOTALL)
