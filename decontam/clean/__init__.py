"""Writes training data again without what a scan found in it; `decontam.clean.run.clean` does the work."""
