"""`alignzoo label`: people compare or rate completions on a local page, and training reads it.

command          the options, and what is printed at the end
candidates       prompts with completions to choose from, read from a file
writer, source   completions drawn from a model, in the background
choice, ensemble which two completions of a prompt are shown: at random, or the undecided ones
answers          the answers on the disk, as rows that training reads
session          who sees what, repeats, undo, progress
summary          counts, agreement with oneself, and the next command
server, guard    the web page, and who may ask for it
"""
