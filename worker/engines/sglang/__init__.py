"""The SGLang client: streamed chat over HTTP."""
