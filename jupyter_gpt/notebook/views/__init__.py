"""What a person sees: live widgets and the static pictures they leave behind."""
