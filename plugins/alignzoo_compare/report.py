"""temporary"""

from alignzoo_compare.live import progress_table
from alignzoo_compare.runner import Progress


def write_report(board, console):
    console.print(progress_table(board, Progress()))
