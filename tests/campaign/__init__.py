"""A campaign: a scripted microscope, a daemon that is struck by faults, and a checker of what is left.

`python -m tests.campaign --seed 1` runs it; `--help` tells the rest. The parts know each other as little as
they can: the microscope keeps a log of what it did, the faults draw from a seed, a reader polls the STAR
files all the time, and the checker compares journal and STAR files with the microscope's log alone.
"""
