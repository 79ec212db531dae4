"""From a name to a loaded model whose capabilities have been measured."""
