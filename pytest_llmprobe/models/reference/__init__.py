"""The embedded model: its files, and the program that trains it."""
