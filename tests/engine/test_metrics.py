import numpy as np
import pytest

from ciss_fast.engine.metrics import (
    base_pixels,
    compute_scores,
    forgetting,
    harmonic_mean,
    intersection_over_union,
    run_scores,
)

# Rows are the truth. Class 0: 8 of 10 right, 2 taken for class 1; class 1: all 5; class 2: 1 of 4.
CONFUSION = np.array([[8, 2, 0], [0, 5, 0], [3, 0, 1]])


def test_iou_by_hand():
    # 0: 8 / (10 + 11 - 8); 1: 5 / (5 + 7 - 5); 2: 1 / (4 + 1 - 1)
    np.testing.assert_array_equal(intersection_over_union(CONFUSION), [8 / 13, 5 / 7, 1 / 4])


def test_scores_by_hand():
    scores = compute_scores(CONFUSION, [2, 1])
    assert scores.iou == (8 / 13, 5 / 7, 1 / 4)
    assert scores.base == pytest.approx((8 / 13 + 5 / 7) / 2, rel=1e-15)
    assert scores.new == 1 / 4
    assert scores.all == pytest.approx((8 / 13 + 5 / 7 + 1 / 4) / 3, rel=1e-15)
    assert scores.harmonic == pytest.approx(2 * scores.base * scores.new / (scores.base + scores.new), rel=1e-15)
    assert scores.pixel_accuracy == 14 / 19
    assert scores.groups == (scores.base, scores.new)


def test_what_pixels_of_base_classes_are_called_by_hand():
    confusion = np.array([[9, 9, 9, 9], [2, 4, 1, 3], [1, 2, 6, 1], [9, 9, 9, 9]])  # base: background, 1 and 2
    assert base_pixels(confusion, 3) == {"right": 10 / 20, "background": 3 / 20, "base": 3 / 20, "later": 4 / 20}
    assert base_pixels(confusion, 4) is not None and base_pixels(confusion, 4)["later"] == 0
    assert base_pixels(np.diag([5, 0, 0, 4]), 3) is None


def test_groups_are_the_means_of_each_step():
    scores = compute_scores(CONFUSION, [1, 1, 1])
    assert scores.groups == (8 / 13, 5 / 7, 1 / 4)
    assert scores.base == 8 / 13
    assert scores.new == pytest.approx((5 / 7 + 1 / 4) / 2, rel=1e-15)


def test_class_without_ground_truth_is_left_out_even_if_it_is_predicted():
    confusion = np.array([[6, 0, 2], [0, 4, 0], [0, 0, 0]])
    scores = compute_scores(confusion, [2, 1])
    assert scores.iou == (6 / 8, 1.0, None)
    assert scores.new is None and scores.harmonic is None
    assert scores.all == scores.base == (6 / 8 + 1) / 2


def test_base_step_has_no_new_classes():
    scores = compute_scores(CONFUSION, [3])
    assert scores.new is None and scores.harmonic is None
    assert scores.base == scores.all


def test_empty_confusion_matrix_has_no_scores():
    scores = compute_scores(np.zeros((2, 2), dtype=np.int64), [1, 1])
    assert scores.summary() == {
        "miou_base": None,
        "miou_new": None,
        "miou_all": None,
        "hiou": None,
        "pixel_accuracy": None,
        "miou_base_foreground": None,
        "miou_all_foreground": None,
        "hiou_foreground": None,
        "pixel_accuracy_foreground": None,
        "miou_by_step": [None, None],
    }


def test_without_background_by_hand():
    scores = compute_scores(CONFUSION, [2, 1])
    assert scores.base_foreground == 5 / 7
    assert scores.all_foreground == pytest.approx((5 / 7 + 1 / 4) / 2, rel=1e-15)
    assert scores.harmonic_foreground == harmonic_mean(5 / 7, 1 / 4)
    assert scores.pixel_accuracy_foreground == 6 / 9  # 5 of 5 and 1 of 4


def test_background_alone_in_the_base_step_has_no_score_without_it():
    scores = compute_scores(CONFUSION, [1, 2])
    assert scores.base == 8 / 13
    assert scores.base_foreground is None and scores.harmonic_foreground is None


def test_forgetting_by_hand():
    matrix = [[0.75, None, None], [0.5, 0.25, None], [0.625, 0.5, 0.125]]
    assert forgetting(matrix) == [0.125, -0.25, None]  # 0.75 to 0.625, a gain, nothing earlier
    assert forgetting(matrix[:1]) == [None, None, None]
    assert forgetting([]) == []
    assert forgetting([[None, None], [0.5, None]]) == [None, None]  # no ground truth then, or none now


def test_scores_of_a_run_by_hand():
    steps = [compute_scores(CONFUSION[:2, :2], [2]).summary(), compute_scores(CONFUSION, [2, 1]).summary()]
    run = run_scores(steps)
    base, later = steps[0]["miou_base"], steps[1]["miou_base"]
    assert run["miou_matrix"] == [[base, None], [later, 1 / 4]]
    assert run["forgetting"] == [base - later, None]
    assert run["mean_forgetting"] == base - later
    assert run["mean_over_steps"]["miou_all"] == run["mean_miou_all"] == (base + steps[1]["miou_all"]) / 2
    assert run["mean_over_steps"]["hiou"] == steps[1]["hiou"]  # the base step has none
    assert run["mean_over_steps"]["miou_new"] == 1 / 4


def test_a_run_without_steps_has_no_scores():
    assert run_scores([])["miou_matrix"] == [] and run_scores([])["mean_forgetting"] is None


def test_counts_beyond_32_bits():
    big = 2**40
    assert compute_scores(np.array([[big, big], [0, big]]), [2]).iou == (1 / 2, 1 / 2)


@pytest.mark.parametrize(("base", "new", "expected"), [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (0.6, 0.0, 0.0)])
def test_harmonic_mean(base, new, expected):
    assert harmonic_mean(base, new) == expected


def test_shape_that_does_not_fit_the_steps_is_an_error():
    with pytest.raises(ValueError, match=r"expected shape \(4, 4\) for classes_per_step \[3, 1\], got \(3, 3\)"):
        compute_scores(CONFUSION, [3, 1])
