"""The inner loops of a search over learnt graphs, compiled: C that is shipped as WebAssembly.

Whatever is not known yet is learnt in Python, which stays the reference: both take the same choices and
find the same. Without the `wasmtime` package everything runs in Python.
"""
