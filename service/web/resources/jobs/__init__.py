"""Endpoints of jobs and their parts."""
