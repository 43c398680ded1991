"""Verifiers: pure functions from a response and a row to a Score, shared by the benchmarks and by RLVR rewards."""
