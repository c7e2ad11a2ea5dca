"""A gateway as configuration of something else, so that leaving is possible too."""
