"""Completions drawn by vLLM, as a server or in this process."""
