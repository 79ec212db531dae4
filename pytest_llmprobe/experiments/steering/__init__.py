"""Attention steering: `summary` says what a sweep over Delta shows, whatever the task."""
