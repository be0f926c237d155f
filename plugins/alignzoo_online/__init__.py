"""Learning from fresh pairs of completions: online-dpo, xpo and nash-md."""
