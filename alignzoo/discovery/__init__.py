"""Find plugins by name, among the entry points of installed packages or in a Python file.

api         the marker of hooks, and the version of the plugin API
sources     the files that a plugin is made of, found without importing it
installed   the plugins of installed packages, and which of them are considered
checked     which plugins have passed the laws of `alignzoo check`
load        import a plugin, and name the one that fails

Discovery reads entry points and imports nothing; only the plugin that a run names is imported, so
that a broken package does not affect the others. `alignzoo.hooks` registers plugins for a run.
"""

from alignzoo.discovery.api import API_VERSION, PROJECT, OldPlugin, hook_methods, hookimpl, hookspec
from alignzoo.discovery.checked import checked_version, record_check
from alignzoo.discovery.installed import (
    GROUPS,
    Found,
    blocking,
    discover,
    find_clashes,
    find_plugin,
    find_problems,
    is_plugin,
    list_blocked,
)
from alignzoo.discovery.load import (
    FUNCTION,
    Loaded,
    find_origin,
    hash_plugin,
    load_function,
    load_plugin,
    load_plugin_file,
    owner_of,
    plugin_source,
    recording,
)

__all__ = [
    "API_VERSION",
    "FUNCTION",
    "GROUPS",
    "PROJECT",
    "Found",
    "Loaded",
    "OldPlugin",
    "blocking",
    "checked_version",
    "discover",
    "find_clashes",
    "find_origin",
    "find_plugin",
    "find_problems",
    "hash_plugin",
    "hook_methods",
    "hookimpl",
    "hookspec",
    "is_plugin",
    "list_blocked",
    "load_function",
    "load_plugin",
    "load_plugin_file",
    "owner_of",
    "plugin_source",
    "record_check",
    "recording",
]
