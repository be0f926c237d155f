"""Models: loading them, and log-probs of batches under them and under their reference.

Names are resolved when they are first used, so importing a light module of this package, such as
the table of adapters, imports no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
