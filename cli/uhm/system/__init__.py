"""The whole system on one machine: `uhm up`, `uhm down`, `uhm doctor`."""
