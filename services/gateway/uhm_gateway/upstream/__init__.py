"""The services behind the gateway, and the connections to them."""
