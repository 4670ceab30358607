"""The front door: gRPC forwarding and a REST mapping made from descriptors."""
