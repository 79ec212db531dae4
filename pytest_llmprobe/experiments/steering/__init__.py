"""What a sweep over Delta shows."""
