"""The comparison: which initialisations there are, what a run leaves behind, the table of all of them."""
