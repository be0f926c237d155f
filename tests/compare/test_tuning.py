"""Every entry gets the same number of trials, and the best of them by its score on dev."""

import pytest

from alignzoo_compare.tuning import Outcome, choose, knob_of, next_trials, with_trial


def outcomes(*scores, rate=1e-3, trials=None):
    trials = trials or [{}] * len(scores)
    return [Outcome(t, score, rate) for t, score in zip(trials, scores, strict=True)]


def test_the_first_trial_has_the_settings_of_the_entry():
    assert next_trials([], 3, knob=0.1) == [{}]


def test_rates_around_that_of_the_first_come_next():
    assert next_trials(outcomes(0.5), 3, knob=0.1) == [
        {"learning_rate": 0.003},
        {"learning_rate": 0.000333},
    ]


def test_the_knob_is_varied_at_the_best_rate():
    done = outcomes(
        0.5, 0.6, 0.4, trials=[{}, {"learning_rate": 0.003}, {"learning_rate": 0.000333}]
    )
    assert next_trials(done, 5, knob=0.1) == [
        {"learning_rate": 0.003, "beta": 0.0333},
        {"learning_rate": 0.003, "beta": 0.3},
    ]


def test_without_a_knob_more_rates_are_tried():
    done = outcomes(0.5, 0.6, 0.4)
    assert next_trials(done, 5, knob=None) == [{"learning_rate": 0.01}, {"learning_rate": 0.0001}]


@pytest.mark.parametrize("knob", [None, 0.1])
@pytest.mark.parametrize("count", range(1, 6))
def test_the_number_of_trials_is_the_same_for_all(count, knob):
    done: list[Outcome] = []
    while trials := next_trials(done, count, knob):
        done += [Outcome(trial, 0.5, 1e-3) for trial in trials]
    assert len(done) == count
    assert len({tuple(outcome.trial.items()) for outcome in done}) == count


def test_a_first_trial_that_failed_ends_the_trials():
    assert next_trials([Outcome({}, float("-inf"), None)], 3, knob=None) == []


def test_of_equal_trials_the_first_wins():
    trials = [{}, {"learning_rate": 3.0}, {"learning_rate": 0.3}]
    assert choose(outcomes(0.5, 0.7, 0.7, trials=trials)) == {"learning_rate": 3.0}
    assert choose(outcomes(0.5, 0.5, 0.5, trials=trials)) == {}
    assert choose(outcomes(float("-inf"), trials=[{"learning_rate": 3.0}])) == {}


def test_a_trial_changes_the_settings_and_keeps_the_others():
    settings = {"algorithm": "dpo", "options": {"loss_type": "ipo"}, "lora_rank": 4}
    assert with_trial(settings, {"learning_rate": 0.1, "beta": 0.2}) == {
        "algorithm": "dpo",
        "options": {"loss_type": "ipo", "beta": 0.2},
        "lora_rank": 4,
        "learning_rate": 0.1,
    }


def test_the_knob_is_the_value_that_the_algorithm_would_use():
    assert knob_of({"algorithm": "dpo"}) == 0.1
    assert knob_of({"algorithm": "dpo", "options": {"beta": 0.7}}) == 0.7
    assert knob_of({"algorithm": "sft"}) is None
    assert knob_of({"algorithm": "grpo"}) is None  # its penalty is off
