"""A ledger that goes on from a checkpoint."""

from __future__ import annotations

from alignzoo.ledger import FEEDBACK, Cost, Ledger


def test_it_stays_the_one_that_others_hold():
    spent = Ledger()
    spent.charge("judge", Cost(1.0, 2))
    spent.use_feedback("judge_calls", 3)
    spent.pay(0.25)
    ledger = Ledger()
    held = ledger
    ledger.pay(1.0)
    ledger.restore(spent.as_dict())
    held.pay(0.5)
    assert ledger.money == 0.75
    assert ledger.feedback["judge_calls"] == 3
    assert ledger.as_dict()["total_flops"] == 1.0


def test_what_an_older_version_did_not_count_is_nothing():
    saved = Ledger().as_dict()
    del saved["money"], saved["feedback"]["judge_retries"]
    saved["feedback"]["judge_calls"] = 7
    ledger = Ledger()
    ledger.restore(saved)
    ledger.use_feedback("judge_retries", 1)
    assert ledger.money == 0
    assert set(ledger.feedback) == set(FEEDBACK)
    assert (ledger.feedback["judge_calls"], ledger.feedback["judge_retries"]) == (7, 1)
