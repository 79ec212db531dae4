"""What is measured: builders of cases, reference solvers, parsers; one folder a family.

The families are those of evals/. They know no model: what one must do is passed in.
"""
