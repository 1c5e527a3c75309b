"""Published litmus tests of memory models: in herd's language, run here, and put beside their verdicts."""
