"""Linux as the judge: what real kernels did, operation by operation, beside what the emulator does.

`cases.py` is the format of recordings, `recorded/` holds them by version, `operations/` has a program for
each recorded operation, `testbed.py` runs one and counts, `agreement.py` compares.
"""
