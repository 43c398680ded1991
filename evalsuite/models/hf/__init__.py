"""The engine `hf`: transformers in this process; `model.HFModel` is the way in.

Log-likelihoods: trie, plan (no torch) → tree, cache, head → score; plain is oracle and fallback, probe chooses.
Generation: prefix → slots, decode, sample → refill → generate; static where a cache has no slots.
"""
