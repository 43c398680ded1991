"""The compiled core: words, JSON lines, the gate over raw bytes, coverage of messages.

Everything here is numba without the interpreter lock, over numpy arrays whose last `PADDING` bytes are zero and unused.
"""

PADDING = 64  # zero bytes that must be readable after the text of every buffer
