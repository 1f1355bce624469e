"""The server backend: running vLLM servers, asked over HTTP."""
