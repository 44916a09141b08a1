"""HTTP as the backend is spoken to: where it is, connections to it, requests and answers."""
