"""The store: the only SQL. Rows never leave it; what goes in and out are domain records."""
