"""A whole Slurm on one host, with its users and their environment: for tests, courses and demonstrations.

    python -m slurm_lab start            munge, MariaDB, slurmdbd, slurmctld and three nodes, one without and two with GPUs
    python -m slurm_lab users --create alice bob
    python -m slurm_lab environment      what the users' servers and workers run in, and a demo lake
    python -m slurm_lab lab              all of it, with the hub before it: what `make lab-slurm` starts
    python -m slurm_lab remove           stop all of it and remove what it made

It needs root and the packages of system-packages.txt, and of Python the standard library alone.
"""


class Refused(Exception):
    """It cannot go on; the message says what was asked, what is in the way and what to do."""
