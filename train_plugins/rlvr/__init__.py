"""Reinforcement learning with verifiable rewards: PPO as in Tülu 3, GRPO as in Tülu 3.1 (arXiv 2411.15124, RLVR)."""
