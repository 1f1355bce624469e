"""The vLLM backend: engines in processes of their own."""
