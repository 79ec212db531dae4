"""What happens inside a model: steering its attention, tracing influence through its layers."""
