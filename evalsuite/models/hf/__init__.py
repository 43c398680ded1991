"""The engine `hf`: transformers in this process; `model.HFModel` is the way in.

Log-likelihoods: trie and plan (no torch) → tree, cache, head → score; plain is the oracle and the fallback, probe chooses.
Generation: prefix → slots, decode, sample → refill → generate; static where a cache has no slots.
"""
