"""Records cases on a real kernel: packages, a guest that is a program in C, QEMU, and what it traced.

`operations.c` and `guest.c` are the guest, `plan.py` says which cases, `initial_files.py` makes what is
booted, `traced.py` reads the trace, and `booted.py` does all of it in order.
"""
