"""Training data: canonical rows, conversion, mixing, generated prompts and preference pairs."""
