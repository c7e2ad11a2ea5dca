"""transform and fields: changes of headers and JSON bodies, and views of responses for each kind of client."""
