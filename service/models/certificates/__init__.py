"""Certificates of succeeded jobs: their signing keys, their content, and whether a model has one."""
