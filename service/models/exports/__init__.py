"""Exports of trained models to the formats of other programs: one module per format, selected by ``creation``."""
