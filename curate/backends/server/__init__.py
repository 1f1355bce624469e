"""The server backend: running vLLM servers, over HTTP."""
