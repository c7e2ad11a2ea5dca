"""The admin API: REST with an OpenAPI document that is made from the same declarations."""
