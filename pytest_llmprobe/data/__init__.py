"""Where texts come from: files, folders and the hub, or a generator."""
