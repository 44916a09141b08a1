"""What FastAPI hands to the routes: the parts of the running service, and the app that a key opens."""
