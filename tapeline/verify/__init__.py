"""Certificates of trained models: their format, and their verification without a service."""
