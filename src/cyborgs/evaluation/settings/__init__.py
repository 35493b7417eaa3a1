"""The settings of the protocols; the defaults are the published ones. No torch here."""
