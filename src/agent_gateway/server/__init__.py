"""The HTTP server below the application: uvicorn's, with connections that cost no more than is bounded.

`head.py` parses the head of a request, `body.py` finds where its body ends, `exchange.py` is one request
and its response, `connection.py` is one connection of a client, `listener.py` accepts them.
"""
