"""`alignzoo doctor`: what this machine has and can do, and what to do about what it cannot.

command     the command
finding     what a check returns
machine     devices, precision, threads, memory, disk
packages    versions, extras, plugins
hub         can the Hub be reached; asked for by --hub
"""
