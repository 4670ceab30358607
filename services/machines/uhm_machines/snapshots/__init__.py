"""Memory snapshots: kept (`store`), and made in the background (`maker`)."""
