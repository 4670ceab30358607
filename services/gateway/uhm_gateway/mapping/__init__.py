"""HTTP requests and JSON to messages and back, as google.api.http and the JSON mapping of proto3 say."""
