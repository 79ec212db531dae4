"""Models behind a server: the OpenAI-compatible protocol and Anthropic's. No torch here."""
