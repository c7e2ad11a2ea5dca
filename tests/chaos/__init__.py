"""A fleet under load in network namespaces of its own, whose parts fail at random while each response is checked.

``make chaos`` runs it for an hour, outside of CI. network.py has the hosts and cuts the network between them, fleet.py has
the processes, faults.py what happens to them, and checks.py what a response may be.
"""
