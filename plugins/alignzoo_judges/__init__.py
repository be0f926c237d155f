"""Judges: models, servers and a task's own score, asked for preferences, ratings and labels.

judge                 a question, and the interface of judges; the gold score as a judge
local, server, reply  a model in this process; a server with the chat API, and parsing its replies
cached                answers stored in the user's cache
resolve               from the text of `--judge` to a judge
comparison            which of two completions is better, and win rates within a group
rating                how good a completion is, from 1 to 10
rubric                which weighted criteria a completion meets
classification        which label a prompt or a completion has
principles            constitutions: principles to criticise, revise and judge by
journal               a round's slow work, written part by part so that it can be resumed
agreement, command    `alignzoo judge`: agreement with human preferences or labels
reward                `--reward judge`

Names are resolved when they are first used, so that the help of a command imports no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
