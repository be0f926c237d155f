"""The reference's log-probs of a run's rows, computed once and kept on disk for later runs.

A completion is known by its token ids and those of its prompt, so that it is found in whatever
batch it comes. On disk its log-probs lie in a folder of the model they are of, in parts of some
hundred groups. Which groups make up a part, and how it is computed, follows from the groups alone:
neither the order of the data, nor the steps, nor how many processes there are has a say, and the
values are the same bit for bit whenever they are computed anew.
"""

from alignzoo.reference_cache.cache import ReferenceCache, cache_reference

__all__ = ["ReferenceCache", "cache_reference"]
