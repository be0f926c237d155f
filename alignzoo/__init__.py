"""One training loop, every alignment algorithm a small plugin, all compared fairly.

Everything that a plugin may need is importable from here; `__init__.pyi` lists it. Names are
resolved when they are first used, so that `import alignzoo`, and with it `alignzoo --help`, imports
no torch.
"""

from typing import Any

import lazy_loader

from alignzoo import deprecated

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_find_former = deprecated.names_of(__name__)


def __getattr__(name: str) -> Any:
    """Return a public name, or what a former one is called now."""
    return _find(name) if name in __all__ else _find_former(name)


deprecated.install()
