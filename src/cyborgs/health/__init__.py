"""Whether a run goes well: figures, what they say, and what is told. No torch is loaded here."""
