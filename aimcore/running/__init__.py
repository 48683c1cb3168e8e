"""Running studies: every check first, then one experiment after another, each recorded as it ends."""
