"""The user accesses of a timed run, compiled: C that is shipped as WebAssembly, and its TLBs.

`TimedEngine.run` in Python stays the reference: both end at the same ns with the same counters and TLBs.
"""
