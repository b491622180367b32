"""Progress of the commands on stderr."""

import contextlib
import io
import os
import re
import time

import pytest
import tensorflow as tf

from keras_perceiver.cli import console

pytestmark = pytest.mark.one_backend


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[io.StringIO, _Terminal])
def stderr(request):
    return request.param()


def test_a_line_is_rewritten_on_a_terminal_and_repeated_elsewhere(stderr, capsys):
    with contextlib.redirect_stderr(stderr):
        line = console.Line(seconds=0)
        line.show("1 of 3")
        line.show("2 of 3")
        line.print("a result")
        line.clear()
    if stderr.isatty():
        erase = "\r\x1b[2K"
        assert stderr.getvalue() == f"{erase}1 of 3{erase}2 of 3{erase}"
    else:
        assert stderr.getvalue() == "1 of 3\n2 of 3\n"
    assert capsys.readouterr().out == "a result\n"


def test_a_line_is_not_shown_too_often(stderr):
    with contextlib.redirect_stderr(stderr):
        line = console.Line()
        for i in range(1000):
            line.show(f"{i} of 1000")
    assert stderr.getvalue() == ""


def test_waiting_states_the_time(stderr):
    with (
        contextlib.redirect_stderr(stderr),
        console.waiting("exporting", seconds=0.02),
    ):
        time.sleep(0.2)
    text = stderr.getvalue()
    assert text.startswith("exporting ...\n")
    assert len(re.findall("exporting: 0 s so far", text)) > 2
    with pytest.raises(ValueError, match="within"), console.waiting("failing"):
        raise ValueError("within")


def test_batches_report_the_remaining_number(stderr):
    dataset = tf.data.Dataset.range(6).batch(2)
    batches = console.Batches(dataset, "evaluating", seconds=0)
    assert batches.element_spec == dataset.element_spec
    with contextlib.redirect_stderr(stderr):
        found = [x.tolist() for x in batches.as_numpy_iterator()]
    assert found == [[0, 1], [2, 3], [4, 5]]
    assert "evaluating: batch 2 of 3, 0 s left" in stderr.getvalue()


def test_duration():
    seconds = (3, 59, 61, 3600, 100 * 60, 3 * 3600 + 125)
    texts = [console.duration(n) for n in seconds]
    assert texts == ["3 s", "59 s", "1 min", "60 min", "100 min", "3 h 2 min"]


def test_quiet_hides_output_of_native_code(capfd):
    with console.quiet():
        os.write(2, b"a message of a library\n")
    os.write(2, b"an error\n")
    assert capfd.readouterr().err == "an error\n"
    with pytest.raises(ValueError, match="within"), console.quiet():
        raise ValueError("within")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"
