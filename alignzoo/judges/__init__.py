"""Judges: models, servers and gold scores that answer questions by probabilities.

question, judge      what is asked, and who answers
local, server, gold  a model in this process; a server that speaks the chat interface; a task
cached               what was answered once is not asked again
choose               from what `judge=` names to a judge
think                an explanation before the answer
compare, numbers     which of two completions is better, in both orders; the maths of it
rate                 how good one completion is, from 1 to 10
principles           what completions are criticised, revised and judged by
"""

from alignzoo.judges.choose import judge_of
from alignzoo.judges.compare import Comparison, Verdict, compare
from alignzoo.judges.judge import Judge
from alignzoo.judges.principles import Constitution, Principle, read_principles
from alignzoo.judges.question import Question, as_messages
from alignzoo.judges.rate import rate

__all__ = [
    "Comparison",
    "Constitution",
    "Judge",
    "Principle",
    "Question",
    "Verdict",
    "as_messages",
    "compare",
    "judge_of",
    "rate",
    "read_principles",
]
