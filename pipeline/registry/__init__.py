"""Registered versions, the gate, who is champion and why."""
