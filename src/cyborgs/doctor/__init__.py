"""``cyborgs doctor``: what is installed, what the machine gives, what is slow or wrong, and what to do about it."""
