"""The engine `vllm`: `model.VLLMModel` in the caller's process; worker, engine, loglik in the child it starts."""
