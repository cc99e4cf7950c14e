"""What was gained and what was lost: measures that compare models, and those who judge them."""
