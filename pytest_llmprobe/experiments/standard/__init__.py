"""What evals/standard is made of: choices, exact answers, instruction checks, perplexity."""
