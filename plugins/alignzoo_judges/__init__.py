"""Judges: models, servers and gold scores that answer questions by probabilities.

question, judge      what is asked, and who answers
local, server, gold  a model in this process; a server that speaks the chat interface; a task
reading              what a server's reply says
cached               what was answered once is not asked again
choose               from what `judge=` names to a judge
think                an explanation before the answer
compare, numbers     which of two completions is better, in both orders; the maths of it
classify             which of some labels it has
win_rates            how often each completion of a group is the better one
rate                 how good one completion is, from 1 to 10
principles           what completions are criticised, revised and judged by
"""

from alignzoo_judges.classify import Labelling, classify
from alignzoo_judges.compare import Comparison, Verdict, compare
from alignzoo_judges.journal import journal
from alignzoo_judges.judge import Judge, Question, as_messages
from alignzoo_judges.principles import Constitution, Principle, read_principles
from alignzoo_judges.rate import rate
from alignzoo_judges.resolve import ModelOptions, check_judge, judge_of
from alignzoo_judges.server import ServerOptions
from alignzoo_judges.win_rates import win_rates

__all__ = [
    "Comparison",
    "Constitution",
    "Judge",
    "Labelling",
    "ModelOptions",
    "Principle",
    "Question",
    "ServerOptions",
    "Verdict",
    "as_messages",
    "check_judge",
    "classify",
    "compare",
    "journal",
    "judge_of",
    "rate",
    "read_principles",
    "win_rates",
]
