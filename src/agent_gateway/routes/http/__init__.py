"""What every route needs of HTTP: errors, bodies, tickets, middleware, the OpenAPI document."""
