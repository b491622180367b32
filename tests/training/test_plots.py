"""Figures of reports: what they say, not what they look like."""

import numpy as np
import pytest

from keras_perceiver.models.dense_reports import RegressionReport, SegmentationReport
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


def test_calibration_of_few_examples_fills_the_figure():
    few = Calibration(np.array([2, 3]), np.array([0.3, 0.8]), np.array([0.0, 0.7]))
    figure = draw_report(few)
    figure.draw_without_rendering()  # computes the layout
    above, _ = figure.axes
    assert above.get_position().height > 0.5
    labels = [text.get_text() for text in above.get_legend().get_texts()]
    assert labels == ["calibrated", "fewer than 10 examples"]


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


def _values():
    targets = np.random.default_rng(0).normal(size=(8, 5, 6, 2))
    return RegressionReport(targets, 0.5 * targets)


def test_agreement_has_all_values_of_every_channel():
    found = _values().agreement()
    assert found.counts.sum(axis=(1, 2)).tolist() == [240, 240]
    first, second, bar = draw_report(found).axes
    assert first.get_title() == f"channel 0\nR2 {found.r2[0]:.3f}, 240 values"
    assert (first.get_xlabel(), first.get_ylabel()) == ("true value", "predicted value")
    assert second.get_title().startswith("channel 1")
    assert bar.get_ylabel() == "values"
    # Predictions are half of the targets: true values 2 are in a bin about 1.
    centers = found.edges[0, :-1] + np.diff(found.edges[0]) / 2
    rows, columns = np.nonzero(found.counts[0])
    width = np.diff(found.edges[0])[0]
    assert np.abs(centers[rows] / 2 - centers[columns]).max() <= 0.76 * width


def test_examples_are_targets_above_predictions():
    maps = _values().figures()["examples"]
    axes = draw_report(maps).axes
    assert len(axes) == 2 * 6 + 1
    np.testing.assert_array_equal(axes[1].images[0].get_array(), maps.targets[1])
    np.testing.assert_array_equal(axes[7].images[0].get_array(), maps.predictions[1])
    assert (axes[0].get_ylabel(), axes[6].get_ylabel()) == ("true", "predicted")
    assert axes[0].images[0].get_clim() == axes[6].images[0].get_clim()


def test_examples_of_classes_have_their_names():
    labels = np.random.default_rng(0).integers(0, 3, (2, 5, 6))
    logits = np.eye(3)[labels]
    labels[0, 0, 0] = 9
    report = SegmentationReport.of(labels, logits, ("a", "b$", "c"), ignore_class=9)
    assert report.metrics()["accuracy"] == 1
    *axes, bar = draw_report(report.figures()["examples"]).axes
    assert [text.get_text() for text in bar.get_yticklabels()] == ["a", "b$", "c"]
    is_blank = np.ma.getmaskarray(axes[0].images[0].get_array())
    assert np.argwhere(is_blank).tolist() == [[0, 0]]
    flat = SegmentationReport.of(
        labels.reshape(2, -1), logits.reshape(2, -1, 3), "abc", 9
    )
    assert "examples" not in flat.figures()
