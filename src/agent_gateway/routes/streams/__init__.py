"""A turn as a stream: where it is found, its frames, the response that sends them."""
