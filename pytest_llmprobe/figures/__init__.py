"""Pictures of results; matplotlib (extra ``plots``) is imported when one is drawn."""
