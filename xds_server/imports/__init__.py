"""Configurations of other gateways as folders of the gateway language. It does no IO.

An importer reads its files as `Field`s, which know what of them was read, and adds objects to a `Draft`. What nobody has read is
reported with its place, so that nothing is dropped in silence.
"""
