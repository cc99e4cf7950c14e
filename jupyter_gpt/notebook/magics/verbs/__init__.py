"""The verbs of `%gpt`: a `Command` and a function of (session, options, shell) for each."""
