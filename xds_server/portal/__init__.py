"""The developer portal: an API for programs and pages for people, both on the store of the marketplace."""
