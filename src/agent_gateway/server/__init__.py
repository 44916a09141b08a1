"""The HTTP server below the application: uvicorn's, with bounded costs per connection.

`head.py` parses the head of a request, `body.py` finds where its body ends, `exchange.py` is one request
and its response, `connection.py` is one connection of a client, `listener.py` accepts them.
"""
