"""Processes on this machine: starting and supervising them, and their processors, memory and ports."""
