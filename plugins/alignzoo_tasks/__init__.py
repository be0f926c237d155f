"""Real tasks for models that know English, with rows from a file or the Hub."""
