"""What a run would take, before it is begun: a rehearsal of a few real steps, and what follows from it."""
