"""The commands of `uhm`, a module per noun; each imports what is heavy where it is used."""
