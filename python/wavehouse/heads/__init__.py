"""Learned heads: train on Arrow, store by content, score in streams, calibrate in SQL."""

import os

# OpenMP threads that wait should sleep: on a machine with other work, spinning makes a fit three
# times slower. It has to be set before the first library loads OpenMP.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
