"""The vLLM backend: engines in separate processes."""
