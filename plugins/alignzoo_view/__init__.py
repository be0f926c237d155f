"""`alignzoo view`: what a run drew in training, and what it answers before and after.

command     the command
read        the rows of a run's logs, checked
select      which of them are shown
show        on the terminal
page        as one HTML page that works offline
"""
