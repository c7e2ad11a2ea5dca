"""Processing of requests and responses in Python, over Envoy's ext_proc filter.

Each route has a chain of processors, from any number of policies. A processor declares the phases in which it takes part,
and Envoy's processing mode follows from them.
"""
