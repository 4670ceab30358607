"""What the gateway says of the API it serves: OpenAPI and a page."""
