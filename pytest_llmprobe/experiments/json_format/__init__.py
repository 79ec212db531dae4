"""Records as JSON under a schema."""
