"""Elastic Moment Bounding (EMB): the reference implementation and its adapter."""
