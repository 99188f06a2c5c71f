"""The shipped chains: each module declares one as `chain`, unless its name starts with `_`."""
