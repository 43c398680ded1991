"""Decides whether a checkpoint may replace the champion: arithmetic on paired scores, with known error rates.

`policy` says what is demanded, `margins` what the data can tell, `rule` how one look decides, `judge` makes the
verdict. Nothing here reads a model, a clock or, but for policy files, the disk.
"""
