"""Figures of reports: what they say, not what they look like."""

import numpy as np
import pytest

from keras_perceiver.models.reports import Calibration, Confusion
from keras_perceiver.training import draw_report
from tests.models.test_reports import multi, single

pytestmark = pytest.mark.one_backend


def test_confusion_has_counts_and_accuracy():
    counts = np.array([[1_030, 2, 0], [0, 4, 1], [3, 0, 0]])
    figure = draw_report(Confusion(counts, ("a", "$b", "c\n")))
    axis = figure.axes[0]
    places = {text.get_position(): text.get_text() for text in axis.texts}
    expected = {
        (j, i): str(counts[i, j]) for i, j in zip(*np.nonzero(counts), strict=True)
    }
    assert places == expected
    assert axis.get_title() == "accuracy 99.4% of 1,040 examples"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    assert [t.get_text() for t in axis.get_xticklabels()] == ["a", "$b", "c\\n"]


def test_calibration_draws_bins_of_few_examples_apart():
    confidence = np.array([0.3, 0.5, 0.7, 0.9])
    frequency = np.array([0.0, 0.4, 0.6, 0.8])
    figure = draw_report(Calibration(np.array([2, 10, 30, 58]), confidence, frequency))
    above, below = figure.axes
    _, model, few = above.get_lines()
    np.testing.assert_array_equal(
        model.get_xydata(), np.stack([confidence, frequency], axis=-1)[1:]
    )
    np.testing.assert_array_equal(few.get_xydata(), [[0.3, 0.0]])
    assert few.get_linestyle() == "None"
    assert few.get_label() == "fewer than 10 examples"
    assert [bar.get_height() for bar in below.patches] == [0.02, 0.1, 0.3, 0.58]
    assert above.get_title() == "expected calibration error 0.104, 100 examples"
    assert (above.get_ylabel(), below.get_ylabel()) == (
        "accuracy",
        "share of\nexamples",
    )


@pytest.mark.parametrize(
    ("make", "label", "total"),
    [
        (single, "accuracy", "200 examples"),
        (multi, "share of positive labels", "1,400 labels"),
    ],
)
def test_calibration_says_what_is_counted(make, label, total):
    calibration = make().calibration()
    above, below = draw_report(calibration).axes
    assert above.get_ylabel() == label
    assert above.get_title().endswith(total)
    assert below.get_ylabel().split() == ["share", "of", total.split()[1]]
    assert calibration.share.sum() == pytest.approx(1)


def test_other_data_are_refused():
    with pytest.raises(TypeError, match="no plot of int"):
        draw_report(3)
