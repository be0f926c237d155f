"""Judges: models, servers and gold scores that answer questions by probabilities.

question, judge      what is asked, and who answers
local, server, gold  a model in this process; a server that speaks the chat interface; a task
cached               what was answered once is not asked again
choose               from what `judge=` names to a judge
compare, numbers     which of two completions is better, in both orders; the maths of it
win_rates            how often each completion of a group is the better one
rate                 how good one completion is, from 1 to 10
"""

from alignzoo.judges.choose import judge_of
from alignzoo.judges.compare import Comparison, Verdict, compare
from alignzoo.judges.judge import Judge
from alignzoo.judges.question import Question
from alignzoo.judges.rate import rate
from alignzoo.judges.win_rates import win_rates

__all__ = ["Comparison", "Judge", "Question", "Verdict", "compare", "judge_of", "rate", "win_rates"]
