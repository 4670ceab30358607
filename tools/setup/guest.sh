# Builds the guest's init; its Makefile knows what is up to date.
make -C guest
