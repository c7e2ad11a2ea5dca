"""The xDS protocol without IO: resources and snapshots, subscriptions, and the two state machines of a stream.

It knows nothing of gateways: it serves whatever resources it is given.
"""
