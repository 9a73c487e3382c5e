"""A number and what it is worth: intervals, results with their provenance, claims and verdicts, figures."""
