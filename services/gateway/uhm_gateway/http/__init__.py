"""What goes over HTTP beside the messages: headers, statuses, compression."""
