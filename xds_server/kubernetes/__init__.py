"""The Kubernetes API: requests, local copies of collections, the leader's lease and the status of objects.

It knows nothing of gateways. Other packages say what is read and kept.
"""
