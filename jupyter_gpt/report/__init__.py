"""A report: what a cell leaves, built once and rendered as text, as HTML and as JSON."""
