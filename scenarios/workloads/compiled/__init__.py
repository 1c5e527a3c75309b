"""Threads' accesses drawn in compiled code: C that is shipped as WebAssembly.

Draw by draw they are what `random.Random` gives, which the workloads go by where there is no `wasmtime`.
"""
