"""The engine `api`: any OpenAI-compatible server; `model.APIModel` is the way in, client sends, probe asks."""
