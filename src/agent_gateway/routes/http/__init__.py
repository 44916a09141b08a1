"""The parts of HTTP that all routes share: errors, bodies, tickets, middleware, the OpenAPI document."""
