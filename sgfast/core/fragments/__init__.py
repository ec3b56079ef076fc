"""Datagrams that arrive in fragments."""
