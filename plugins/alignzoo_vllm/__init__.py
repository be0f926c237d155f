"""Completions drawn by vLLM."""
