"""What is measured: builders of cases, reference solvers, parsers. One module per family."""
