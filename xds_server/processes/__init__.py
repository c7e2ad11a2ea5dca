"""Processes on this machine: started, supervised, and their processors, memory and ports."""
