from .classification import Labelling, classify
from .comparison import COMPARISON_QUESTION, Comparison, Verdict, compare, win_rates
from .journal import keep_journal
from .judge import Answer, Judge, Question, Usage, as_messages
from .principles import Constitution, Principle, read_principles
from .rating import RATING_QUESTION, rate
from .resolve import ModelOptions, check_judge, resolve_judge
from .server import ServerOptions

__all__ = [
    "COMPARISON_QUESTION",
    "RATING_QUESTION",
    "Answer",
    "Comparison",
    "Constitution",
    "Judge",
    "Labelling",
    "ModelOptions",
    "Principle",
    "Question",
    "ServerOptions",
    "Usage",
    "Verdict",
    "as_messages",
    "check_judge",
    "classify",
    "compare",
    "keep_journal",
    "rate",
    "read_principles",
    "resolve_judge",
    "win_rates",
]
